#include "program.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/platform/platform.h>

#include <cstdio>

#include <numeric>
#include <optional>

namespace diffulex {

namespace et = executorch;
using et::extension::Module;

namespace {

// ExecuTorch writes notes about the processor to standard error; of its messages only faults are for the user.
void tell(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t, const char* text, size_t size) {
  if (level == et_pal_log_level_t::kError || level == et_pal_log_level_t::kFatal) {
    std::fprintf(stderr, "executorch: %.*s\n", static_cast<int>(size), text);
  }
}

const bool kQuiet = et::runtime::register_pal(et::runtime::PalImpl::create(tell, __FILE__));

// XNNPACK lays weights out as its products want them: once for all methods, where each else has a copy of its own.
void share_weights() {
  et::runtime::BackendOptions<1> options;
  const bool shared = options.set_option("weight_cache_enabled", true) == et::runtime::Error::Ok &&
                      et::runtime::set_option("XnnpackBackend", options.view()) == et::runtime::Error::Ok;
  if (!shared) throw std::logic_error("XNNPACK does not take weight_cache_enabled");
}

}  // namespace

struct Program::Inside {
  Inside(const std::string& path, bool one_thread)
      // Methods share what is remembered, so they share their memory.
      : module(path, Module::LoadMode::Mmap, nullptr, nullptr, nullptr, /*share_memory_arenas=*/true) {
    if (one_thread) alone.emplace();
    share_weights();
  }
  Module module;
  std::optional<et::extension::threadpool::NoThreadPoolGuard> alone;
};

Program::Program(const Pack& pack, bool one_thread)
    : pack_(pack), inside_(std::make_unique<Inside>(pack.program.string(), one_thread)) {
  const auto names = inside_->module.method_names();
  if (!names.ok()) throw BadPack(pack.program.string() + ": not a program that ExecuTorch can load");
  for (const auto& method : pack.methods) {
    if (!names->count(method.name)) throw BadPack(pack.program.string() + ": has no method " + method.name);
  }
}

Program::~Program() = default;

Program::Values Program::call(const std::string& method, const Values& inputs) {
  const auto& ports = pack_.method(method);
  std::vector<et::extension::TensorPtr> tensors;  // they own nothing: the values do, for as long as the call lasts
  std::vector<et::runtime::EValue> arguments;
  for (const auto& port : ports.inputs) {
    const auto& value = inputs.at(port.name);
    const bool whole = port.dtype == "int64";
    const void* data = whole ? static_cast<const void*>(value.whole.data()) : static_cast<const void*>(value.real.data());
    const auto size = std::accumulate(port.shape.begin(), port.shape.end(), size_t{1}, std::multiplies<>());
    if ((whole ? value.whole.size() : value.real.size()) != size) throw std::logic_error(method + ": " + port.name + " has another size");
    tensors.push_back(et::extension::make_tensor_ptr(
        std::vector<et::aten::SizesType>(port.shape.begin(), port.shape.end()), const_cast<void*>(data),
        whole ? et::aten::ScalarType::Long : et::aten::ScalarType::Float));
    arguments.emplace_back(tensors.back());
  }
  const auto result = inside_->module.execute(method, arguments);
  if (!result.ok()) {
    throw BadPack(pack_.program.string() + ": " + method + " failed with ExecuTorch's error " + std::to_string(static_cast<int>(result.error())));
  }
  Values found;
  for (size_t i = 0; i < ports.outputs.size(); ++i) {
    const auto tensor = result->at(i).toTensor();
    auto& value = found[ports.outputs[i].name];
    if (ports.outputs[i].dtype == "int64") {
      value.whole.assign(tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel());
    } else {
      value.real.assign(tensor.const_data_ptr<float>(), tensor.const_data_ptr<float>() + tensor.numel());
    }
  }
  return found;
}

}  // namespace diffulex
