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

/// runner.json, the contract of a pack.
public struct Contract: Decodable {
    public let format: String
    public let context: String
    public let block_size: Int
    public let max_length: Int?
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
    private let canvas: Bool
    private let first: Int
    private let end: Int
    private var start: Int
    private var ids: [Int64]
    private var opening: [Float]?

    /// threshold: what is at least so probable is shown at once; above 1: by count alone.
    public init(_ contract: Contract, _ program: Program, prompt: [Int64], maxNewTokens: Int, threshold: Float = 2) throws {
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
        (self.contract, self.program, self.threshold) = (contract, program, threshold)
    }

    /// The new tokens, up to and with what ended the text. `told` hears of each finished block.
    public func run(_ told: ([Int64]) -> Void = { _ in }) throws -> [Int64] {
        var found: [Int64] = []
        if !canvas { for at in stride(from: 0, to: start, by: contract.block_size) { try commit(at) } }
        while start < end {
            let stop = min(start + contract.block_size, ids.count)
            open()
            try denoise(stop)
            let fresh = fresh(stop)
            found += fresh
            told(fresh)
            if let last = fresh.last, contract.stop_ids.contains(last) { break }
            if stop >= end { break }
            if !canvas { try commit(start) }
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
            var inputs = seen(stop)
            inputs["t"] = .real([1 - Float(step) / Float(counts.count)])
            inputs["asked"] = .whole([Int64(last - start)])
            inputs["count"] = .whole([step + 1 == counts.count ? Int64(stop - start) : count])
            inputs["threshold"] = .real([threshold])
            guard case .whole(let shown)? = try call(canvas ? "look" : "denoise", inputs)["block"] else { return }
            for at in start..<last { ids[at] = shown[at - start] }
        }
    }

    private func seen(_ stop: Int) -> [String: Value] {
        let start = Value.whole([Int64(self.start)])
        guard canvas, let width = contract.max_length else {
            return ["start": start, "block": .whole(Array(ids[self.start..<stop]))]
        }
        let whole = ids + Array(repeating: contract.mask_id, count: width - ids.count)
        return ["start": start, "canvas": .whole(whole), "stop": .whole([Int64(ids.count)])]
    }

    private func commit(_ at: Int) throws {
        let block = Value.whole(Array(ids[at..<at + contract.block_size]))
        let found = try call("commit", ["start": .whole([Int64(at)]), "block": block])
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
