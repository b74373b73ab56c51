// A pack's program on Android, through ExecuTorch's own library. Compiled by your app, not by DiffuLex Edge: untested.
package edge.diffulex

import java.io.File
import java.security.MessageDigest
import org.json.JSONObject
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** Opens a pack's folder after its program was found to be the one that manifest.json names. */
class AndroidProgram(folder: File) : Program {
    val contract: Contract
    private val module: Module

    init {
        val files = JSONObject(File(folder, "manifest.json").readText()).getJSONObject("files")
        for (name in listOf("runner.json", "model.pte")) check(sha256(File(folder, name)) == files.getJSONObject(name).getString("sha256")) {
            "${File(folder, name)}: its sha256 is not the one in manifest.json, so it was changed or damaged"
        }
        contract = Contract(JSONObject(File(folder, "runner.json").readText()))
        module = Module.load(File(folder, "model.pte").path)
    }

    override fun execute(method: String, inputs: List<Value>): List<Value> {
        val ports = contract.methods.getValue(method).inputs
        val given = inputs.mapIndexed { i, value ->
            val whole = value.whole
            if (whole != null) EValue.from(Tensor.fromBlob(whole, ports[i].shape))
            else EValue.from(Tensor.fromBlob(value.real!!, ports[i].shape))
        }
        return module.execute(method, *given.toTypedArray()).zip(contract.methods.getValue(method).outputs) { found, port ->
            val tensor = found.toTensor()
            if (port.dtype == "int64") Value.of(*tensor.dataAsLongArray) else Value.of(*tensor.dataAsFloatArray)
        }
    }

    private fun sha256(file: File): String {
        val digest = MessageDigest.getInstance("SHA-256")
        file.inputStream().use { stream ->
            val buffer = ByteArray(1 shl 16)
            generateSequence { stream.read(buffer).takeIf { it >= 0 } }.forEach { digest.update(buffer, 0, it) }
        }
        return digest.digest().joinToString("") { "%02x".format(it) }
    }
}
