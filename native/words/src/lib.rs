//! What `diffulex_edge/text/json_tokenizer.py` does, behind C functions: the same library, told the same things.
//!
//! Texts come in normalised, as UTF-8 that is checked here. What is made goes to the caller's `Take` before a
//! function returns, so nobody frees what another allocated.

use std::collections::HashSet;
use std::ffi::c_void;
use std::slice::from_raw_parts;

use tokenizers::{AddedToken, Tokenizer};

pub struct Words {
    tokenizer: Tokenizer,
    controls: HashSet<u32>,
}

/// Called once with the caller's pointer, the first of the values, and how many there are.
pub type Take<T> = unsafe extern "C" fn(into: *mut c_void, first: *const T, count: usize);

impl Words {
    /// The tokenizer of a `tokenizer.json`; `roles` are the ids that mask, end and pad, which no text may spell.
    fn read(json: &[u8], roles: &[i64]) -> Option<Self> {
        let mut tokenizer = Tokenizer::from_bytes(json).ok()?;
        tokenizer.with_truncation(None).ok()?.with_padding(None);
        for &role in roles {
            let token = tokenizer.id_to_token(u32::try_from(role).ok()?)?;
            tokenizer
                .add_special_tokens([AddedToken::from(token, true).normalized(false)])
                .ok()?;
        }
        tokenizer.set_encode_special_tokens(true);
        let added = tokenizer.get_added_tokens_decoder();
        let controls = added
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect();
        Some(Self {
            tokenizer,
            controls,
        })
    }

    fn encode(&self, text: &str) -> Option<Vec<i64>> {
        let encoding = self.tokenizer.encode_fast(text, false).ok()?;
        Some(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    fn decode(&self, ids: &[i64]) -> Option<String> {
        let known = ids
            .iter()
            .map(|&id| u32::try_from(id))
            .collect::<Result<Vec<_>, _>>();
        let words: Vec<u32> = known
            .ok()?
            .into_iter()
            .filter(|id| !self.controls.contains(id))
            .collect();
        self.tokenizer.decode(&words, false).ok()
    }

    fn size(&self) -> i64 {
        let largest = self.tokenizer.get_vocab(true).into_values().max();
        largest.map_or(0, |id| i64::from(id) + 1)
    }
}

/// Null where it is no tokenizer.json, or has no such roles.
///
/// # Safety
/// `json` and `roles` point at so many readable values. Null, or what this gave, is freed by `diffulex_words_close`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn diffulex_words_open(
    json: *const u8,
    size: usize,
    roles: *const i64,
    count: usize,
) -> *mut Words {
    let (json, roles) = unsafe { (from_raw_parts(json, size), from_raw_parts(roles, count)) };
    Words::read(json, roles).map_or(std::ptr::null_mut(), |words| Box::into_raw(Box::new(words)))
}

/// # Safety
/// `words` is null or from `diffulex_words_open`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn diffulex_words_close(words: *mut Words) {
    if !words.is_null() {
        drop(unsafe { Box::from_raw(words) });
    }
}

/// One more than the largest id.
///
/// # Safety
/// `words` is from `diffulex_words_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn diffulex_words_size(words: *const Words) -> i64 {
    unsafe { &*words }.size()
}

/// Gives the ids of a text to `take`; false where the text is no UTF-8 or has none.
///
/// # Safety
/// `words` is from `diffulex_words_open`, `text` points at `size` bytes, `take` may be called with `into`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn diffulex_words_encode(
    words: *const Words,
    text: *const u8,
    size: usize,
    take: Take<i64>,
    into: *mut c_void,
) -> bool {
    let (words, bytes) = unsafe { (&*words, from_raw_parts(text, size)) };
    let Some(ids) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| words.encode(text))
    else {
        return false;
    };
    unsafe { take(into, ids.as_ptr(), ids.len()) };
    true
}

/// Gives the text of ids, in UTF-8, to `take`; control ids have none. False for ids that are none.
///
/// # Safety
/// `words` is from `diffulex_words_open`, `ids` points at `count` values, `take` may be called with `into`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn diffulex_words_decode(
    words: *const Words,
    ids: *const i64,
    count: usize,
    take: Take<u8>,
    into: *mut c_void,
) -> bool {
    let (words, ids) = unsafe { (&*words, from_raw_parts(ids, count)) };
    let Some(text) = words.decode(ids) else {
        return false;
    };
    unsafe { take(into, text.as_ptr(), text.len()) };
    true
}
