// Decodes golden texts with a program that plays back what the real one was recorded to do, and refuses anything else.
package edge.diffulex

import java.io.File
import kotlin.system.exitProcess
import org.json.JSONArray
import org.json.JSONObject

/** Calls in the order in which Python made them: method, inputs, outputs. */
class Played(private val calls: JSONArray, private val contract: Contract) : Program {
    var at = 0

    override fun execute(method: String, inputs: List<Value>): List<Value> {
        val call = calls.getJSONObject(at++)
        check(call.getString("method") == method) { "call $at: $method, Python called ${call.getString("method")}" }
        val expected = values(call.getJSONArray("inputs"), contract.methods.getValue(method).inputs)
        for ((i, value) in inputs.withIndex()) {
            val same = value.whole.contentEquals(expected[i].whole) && value.real.contentEquals(expected[i].real)
            check(same) { "call $at of $method: input ${contract.methods.getValue(method).inputs[i].name} differs" }
        }
        return values(call.getJSONArray("outputs"), contract.methods.getValue(method).outputs)
    }

    private fun values(all: JSONArray, ports: List<Port>) = ports.mapIndexed { i, port ->
        val numbers = all.getJSONArray(i)
        if (port.dtype == "int64") Value.of(*numbers.longs()) else Value.of(*FloatArray(numbers.length()) { numbers.getFloat(it) })
    }
}

fun main(words: Array<String>) {
    val (pack, recorded) = words.map(::File)
    val contract = Contract(JSONObject(File(pack, "runner.json").readText()))
    val texts = JSONObject(recorded.readText()).getJSONArray("texts").objects()
    for (text in texts) {
        val program = Played(text.getJSONArray("calls"), contract)
        val told = ArrayList<Long>()
        val options = DecodeOptions(text.getFloat("threshold"), text.getBoolean("dual"))
        val found = Decoder(contract, program).decode(text.getJSONArray("ids").longs(), text.getInt("max_new_tokens"), options) {
            told.addAll(it.asList())
        }
        val expected = text.getJSONArray("tokens").longs()
        if (!found.contentEquals(expected) || told != found.asList() || program.at != text.getJSONArray("calls").length()) {
            System.err.println("${text.getString("prompt")}: ${found.asList()}, golden ${expected.asList()}")
            exitProcess(1)
        }
    }
    println("${texts.size} golden texts")
}
