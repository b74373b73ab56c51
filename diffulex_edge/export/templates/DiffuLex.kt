// The denoise loop of a DiffuLex Edge pack: the same tokens as `diffulex-edge sample --pte`, greedily. Token ids in, token
// ids out; the pack's tokenizer turns text into ids. Needs org.json, which Android has, and a Program: DiffuLexAndroid.kt.
package edge.diffulex

import org.json.JSONArray
import org.json.JSONObject

/** A value of a method's port: whole numbers of an int64 port, or real ones of a float32 port. */
class Value private constructor(val whole: LongArray?, val real: FloatArray?) {
    companion object {
        fun of(vararg numbers: Long) = Value(numbers, null)
        fun of(vararg numbers: Float) = Value(null, numbers)
    }
}

/** An input or output of a method, as runner.json names it. */
class Port(json: JSONObject) {
    val name: String = json.getString("name")
    val dtype: String = json.getString("dtype")
    val shape: LongArray = json.getJSONArray("shape").longs()
}

class Method(json: JSONObject) {
    val inputs: List<Port> = json.getJSONArray("inputs").objects().map(::Port)
    val outputs: List<Port> = json.getJSONArray("outputs").objects().map(::Port)
}

/** A method that looks at a block, and of how many tokens the canvas is that it reads. */
internal class View(val method: String, val length: Int)

/** runner.json, the contract of a pack. */
class Contract(json: JSONObject) {
    val context: String = json.getString("context")
    val blockSize: Int = json.getInt("block_size")
    val maxLength: Int? = if (json.isNull("max_length")) null else json.getInt("max_length")
    private val buckets: LongArray = json.optJSONArray("buckets")?.longs() ?: LongArray(0)
    val maskId: Long = json.getLong("mask_id")
    val banned: LongArray = json.getJSONArray("banned").longs()
    val stopIds: LongArray = json.getJSONArray("stop_ids").longs()
    val counts: List<LongArray> = json.getJSONArray("counts").let { all -> List(all.length()) { all.getJSONArray(it).longs() } }
    val methods: Map<String, Method> =
        json.getJSONObject("methods").let { all -> all.keys().asSequence().associateWith { Method(all.getJSONObject(it)) } }

    /** Tokens that a cache takes in at once; null: a block. */
    val prefill: Int? = methods["prefill"]?.run { inputs[0].shape[1].toInt() }

    init {
        val format = json.getString("format")
        require(format == FORMAT) { "format $format is not $FORMAT" }
    }

    /** The shortest canvas that so many tokens fit on. */
    internal fun canvas(tokens: Int): View {
        val fitting = buckets.filter { it >= tokens }.minOrNull()?.toInt() ?: maxLength!!
        return View(if (fitting == maxLength) "look" else "look_of_$fitting", fitting)
    }

    companion object {
        const val FORMAT = "diffulex-edge-pack/1"
    }
}

/** An opened .pte: a method's outputs for its inputs, both in the order of its ports. */
fun interface Program {
    fun execute(method: String, inputs: List<Value>): List<Value>
}

/**
 * How a text is decoded.
 *
 * [threshold]: what is at least so probable is shown at once; above 1: by count alone. [dual]: of a canvas, after a first
 * look at each block, read the block alone: Fast-dLLM's cache, much faster and not exact.
 */
data class DecodeOptions(val threshold: Float = 2f, val dual: Boolean = false)

/** Decodes texts with a program, one at a time. Threads must not share one. */
class Decoder(private val contract: Contract, private val program: Program) {
    /**
     * Continues [prompt]; gives the new tokens, up to and with what ended the text.
     *
     * [options] say how. [told] hears of each finished block. Throws IllegalArgumentException where the text would be longer
     * than the program takes.
     */
    fun decode(prompt: LongArray, maxNewTokens: Int, options: DecodeOptions = DecodeOptions(), told: (LongArray) -> Unit = {}): LongArray {
        require(maxNewTokens >= 0) { "maxNewTokens=$maxNewTokens must be at least 0" }
        require(!options.dual || contract.context == "canvas") { "dual: only a canvas is read so, not ${contract.context}" }
        val text = Text(prompt, maxNewTokens, options)
        val found = ArrayList<Long>()
        text.run { fresh -> found.addAll(fresh.asList()); told(fresh) }
        return found.toLongArray()
    }

    /** One text, block by block: block-causal contexts on the program's grid, a canvas from the prompt's end on. */
    private inner class Text(prompt: LongArray, maxNewTokens: Int, private val options: DecodeOptions) {
        private val size = contract.blockSize
        private val canvas = contract.context == "canvas"
        private val first = prompt.size
        private val end = first + maxNewTokens
        private var start = if (canvas) first else first / size * size
        private val ids: LongArray
        private val cold: View
        private var opening: FloatArray? = null

        init {
            val width = if (canvas) end else (end + size - 1) / size * size
            contract.maxLength?.let { require(width <= it) { "$width tokens are more than the $it that the program takes" } }
            ids = LongArray(width) { if (it < first) prompt[it] else contract.maskId }
            cold = if (canvas) contract.canvas(width) else View("denoise", 0)
        }

        fun run(told: (LongArray) -> Unit) {
            var at = 0
            while (!canvas && at < start) {
                val many = contract.prefill?.takeIf { at + it <= start }
                at += if (many == null) commit(at) else commit(at, "prefill", many)
            }
            while (start < end) {
                val stop = minOf(start + size, ids.size)
                open()
                denoise(stop)
                val fresh = fresh(stop)
                told(fresh)
                if (fresh.isNotEmpty() && fresh.last() in contract.stopIds || stop >= end) return
                if (!canvas) commit(start)
                start = stop
            }
        }

        /** Some models decide a block's first token when they remember the block before. */
        private fun open() {
            val logits = opening ?: return
            if (ids[start] != contract.maskId || start < first || start >= end) return
            for (id in contract.banned) logits[id.toInt()] = Float.NEGATIVE_INFINITY
            ids[start] = logits.indices.maxByOrNull { logits[it] }!!.toLong()
        }

        private fun hidden(from: Int, to: Int) = (from until to).count { ids[it] == contract.maskId }

        private fun denoise(stop: Int) {
            val last = minOf(stop, end) // what is asked for ends here
            val counts = contract.counts[hidden(maxOf(start, first), last)]
            for ((step, count) in counts.withIndex()) {
                if (hidden(start, last) == 0) return
                val view = if (options.dual && step > 0) View("denoise", contract.maxLength!!) else cold
                val at = if (canvas) minOf(start, view.length - size) else start // at its end over text that is written
                val inputs = seen(view, at, stop) + mapOf(
                    "t" to Value.of(1f - step.toFloat() / counts.size),
                    "asked" to Value.of((last - at).toLong()),
                    "count" to Value.of(if (step + 1 == counts.size) (stop - start).toLong() else count),
                    "threshold" to Value.of(options.threshold),
                )
                val shown = call(view.method, inputs).getValue("block").whole!!
                for (i in start until last) ids[i] = shown[i - at]
            }
        }

        private fun seen(view: View, at: Int, stop: Int): Map<String, Value> {
            val where = mapOf("start" to Value.of(at.toLong()))
            if (!canvas) return where + ("block" to Value.of(*ids.copyOfRange(start, stop)))
            val whole = LongArray(view.length) { if (it < ids.size) ids[it] else contract.maskId }
            return where + mapOf("canvas" to Value.of(*whole), "stop" to Value.of(ids.size.toLong()))
        }

        /** Remembers [length] tokens, and gives their number. */
        private fun commit(at: Int, method: String = "commit", length: Int = size): Int {
            val block = Value.of(*ids.copyOfRange(at, at + length))
            opening = call(method, mapOf("start" to Value.of(at.toLong()), "block" to block))["opening"]?.real
            return length
        }

        private fun fresh(stop: Int): LongArray {
            val from = maxOf(start, first)
            val to = minOf(stop, end)
            val ended = (from until to).firstOrNull { ids[it] in contract.stopIds }
            return if (from < to) ids.copyOfRange(from, (ended ?: (to - 1)) + 1) else LongArray(0)
        }

        private fun call(name: String, inputs: Map<String, Value>): Map<String, Value> {
            val method = requireNotNull(contract.methods[name]) { "the pack has no method $name" }
            val found = program.execute(name, method.inputs.map { requireNotNull(inputs[it.name]) { "$name: no ${it.name}" } })
            return method.outputs.mapIndexed { i, port -> port.name to found[i] }.toMap()
        }
    }
}

internal fun JSONArray.longs() = LongArray(length()) { getLong(it) }

internal fun JSONArray.objects() = List(length()) { getJSONObject(it) }
