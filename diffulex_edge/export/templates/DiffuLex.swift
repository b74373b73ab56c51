// The denoise loop of a DiffuLex Edge pack: the same tokens as `diffulex-edge sample --pte`, greedily. Token ids in, token
// ids out; the pack's tokenizer turns text into ids. Written after DiffuLex.kt, which is tested; this file is UNTESTED: it
// was never compiled. Give it a Program that calls the methods of model.pte, by ExecuTorch's own Swift package.
import Foundation

public enum Value {
    case whole([Int64])  // of an int64 port
    case real([Float])  // of a float32 port
}

public struct Port: Decodable {
    public let name: String
    public let dtype: String
    public let shape: [Int]
}

public struct Method: Decodable {
    public let inputs: [Port]
    public let outputs: [Port]
}

/// A method that looks at a block, and of how many tokens the canvas is that it reads.
struct View {
    let method: String
    let length: Int
}

/// runner.json, the contract of a pack.
public struct Contract: Decodable {
    public let format: String
    public let context: String
    public let block_size: Int
    public let max_length: Int?
    public let buckets: [Int]?
    public let mask_id: Int64
    public let banned: [Int]
    public let stop_ids: [Int64]
    public let counts: [[Int64]]
    public let methods: [String: Method]

    public static func read(_ file: URL) throws -> Contract {
        let found = try JSONDecoder().decode(Contract.self, from: Data(contentsOf: file))
        guard found.format == "diffulex-edge-pack/1" else { throw PackError.refused("format \(found.format)") }
        return found
    }

    /// Tokens that a cache takes in at once; nil: a block.
    var prefill: Int? { methods["prefill"]?.inputs.first?.shape.last }

    /// The shortest canvas that so many tokens fit on.
    func canvas(_ tokens: Int) -> View {
        let most = max_length ?? tokens
        let fitting = (buckets ?? []).filter { $0 >= tokens }.min() ?? most
        return View(method: fitting == most ? "look" : "look_of_\(fitting)", length: fitting)
    }
}

public enum PackError: Error {
    case refused(String)
}

/// An opened .pte: a method's outputs for its inputs, both in the order of its ports.
public protocol Program {
    func execute(_ method: String, _ inputs: [Value]) throws -> [Value]
}

/// Decodes one text. Make a new one for each; threads must not share a program.
public final class Decoder {
    private let contract: Contract
    private let program: Program
    private let threshold: Float
    private let dual: Bool
    private let canvas: Bool
    private let first: Int
    private let end: Int
    private var start: Int
    private var ids: [Int64]
    private let cold: View
    private var opening: [Float]?

    /// threshold: what is at least so probable is shown at once; above 1: by count alone. dual: of a canvas, after a first
    /// look at each block, read the block alone: Fast-dLLM's cache, much faster and not exact.
    public init(
        _ contract: Contract, _ program: Program, prompt: [Int64], maxNewTokens: Int, threshold: Float = 2, dual: Bool = false
    ) throws {
        let size = contract.block_size
        canvas = contract.context == "canvas"
        first = prompt.count
        end = first + maxNewTokens
        start = canvas ? first : first / size * size
        let width = canvas ? end : (end + size - 1) / size * size
        if let most = contract.max_length, width > most {
            throw PackError.refused("\(width) tokens are more than the \(most) that the program takes")
        }
        ids = prompt + Array(repeating: contract.mask_id, count: width - first)
        if dual && !canvas { throw PackError.refused("dual: only a canvas is read so, not \(contract.context)") }
        cold = canvas ? contract.canvas(width) : View(method: "denoise", length: 0)
        (self.contract, self.program, self.threshold, self.dual) = (contract, program, threshold, dual)
    }

    /// The new tokens, up to and with what ended the text. `told` hears of each finished block.
    public func run(_ told: ([Int64]) -> Void = { _ in }) throws -> [Int64] {
        var found: [Int64] = []
        var at = 0
        while !canvas && at < start {
            let many = contract.prefill.flatMap { at + $0 <= start ? $0 : nil }
            let length = many ?? contract.block_size
            try commit(at, many == nil ? "commit" : "prefill", length)
            at += length
        }
        while start < end {
            let stop = min(start + contract.block_size, ids.count)
            open()
            try denoise(stop)
            let fresh = fresh(stop)
            found += fresh
            told(fresh)
            if let last = fresh.last, contract.stop_ids.contains(last) { break }
            if stop >= end { break }
            if !canvas { try commit(start, "commit", contract.block_size) }
            start = stop
        }
        return found
    }

    /// Some models decide a block's first token when they remember the block before.
    private func open() {
        guard var logits = opening, ids[start] == contract.mask_id, start >= first, start < end else { return }
        for id in contract.banned { logits[id] = -.infinity }
        ids[start] = Int64(logits.indices.reduce(0) { logits[$1] > logits[$0] ? $1 : $0 })
    }

    private func hidden(_ from: Int, _ to: Int) -> Int {
        from < to ? ids[from..<to].filter { $0 == contract.mask_id }.count : 0
    }

    private func denoise(_ stop: Int) throws {
        let last = min(stop, end)  // what is asked for ends here
        let counts = contract.counts[hidden(max(start, first), last)]
        for (step, count) in counts.enumerated() where hidden(start, last) > 0 {
            let view = dual && step > 0 ? View(method: "denoise", length: contract.max_length ?? ids.count) : cold
            let at = canvas ? min(start, view.length - contract.block_size) : start  // at its end over text that is written
            var inputs = seen(view, at, stop)
            inputs["t"] = .real([1 - Float(step) / Float(counts.count)])
            inputs["asked"] = .whole([Int64(last - at)])
            inputs["count"] = .whole([step + 1 == counts.count ? Int64(stop - start) : count])
            inputs["threshold"] = .real([threshold])
            guard case .whole(let shown)? = try call(view.method, inputs)["block"] else { return }
            for i in start..<last { ids[i] = shown[i - at] }
        }
    }

    private func seen(_ view: View, _ at: Int, _ stop: Int) -> [String: Value] {
        let start = Value.whole([Int64(at)])
        guard canvas else {
            return ["start": start, "block": .whole(Array(ids[self.start..<stop]))]
        }
        let whole = ids + Array(repeating: contract.mask_id, count: view.length - ids.count)
        return ["start": start, "canvas": .whole(whole), "stop": .whole([Int64(ids.count)])]
    }

    private func commit(_ at: Int, _ method: String, _ length: Int) throws {
        let block = Value.whole(Array(ids[at..<at + length]))
        let found = try call(method, ["start": .whole([Int64(at)]), "block": block])
        if case .real(let logits)? = found["opening"] { opening = logits }
    }

    private func fresh(_ stop: Int) -> [Int64] {
        let (from, to) = (max(start, first), min(stop, end))
        guard from < to else { return [] }
        let ended = (from..<to).first { contract.stop_ids.contains(ids[$0]) }
        return Array(ids[from...(ended ?? to - 1)])
    }

    private func call(_ name: String, _ inputs: [String: Value]) throws -> [String: Value] {
        guard let method = contract.methods[name] else { throw PackError.refused("the pack has no method \(name)") }
        let given = try method.inputs.map { port -> Value in
            guard let value = inputs[port.name] else { throw PackError.refused("\(name): no \(port.name)") }
            return value
        }
        return Dictionary(uniqueKeysWithValues: zip(method.outputs.map(\.name), try program.execute(name, given)))
    }
}
