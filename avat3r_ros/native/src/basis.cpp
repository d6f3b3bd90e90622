// Entry point of the compiled animation: checks, threads, choice of the instruction set.
#include <algorithm>
#include <cstring>

#include "basis_types.h"
#include "thread_pool.h"

namespace avat3r {

extern const BasisKernels kBasisKernelsBaseline;
#if defined(__x86_64__)
extern const BasisKernels kBasisKernelsAvx2, kBasisKernelsAvx512;
#endif

namespace {

constexpr int kTaskBlocks = 16;

// Kernels of an instruction set by its index, null if there is no such set.
const BasisKernels* basis_kernels(int32_t instruction_set) {
  const char* name = avat3r_instruction_set_name(std::max(0, instruction_set));
  if (name == nullptr) return nullptr;
#if defined(__x86_64__)
  // Half floats are an extension of their own below AVX-512.
  if (!strcmp(name, kBasisKernelsAvx512.name)) return &kBasisKernelsAvx512;
  if (!strcmp(name, kBasisKernelsAvx2.name) && __builtin_cpu_supports("f16c")) {
    return &kBasisKernelsAvx2;
  }
#endif
  return &kBasisKernelsBaseline;
}

}  // namespace
}  // namespace avat3r

using namespace avat3r;

int32_t avat3r_basis_evaluate(const Avat3rBasis* basis, const float* inputs,
                              const Avat3rBasisOutputs* outputs, int32_t num_threads,
                              int32_t instruction_set) {
  if (basis == nullptr || inputs == nullptr || outputs == nullptr || basis->num_inputs < 0 ||
      basis->num_inputs > kMaxBasisInputs || basis->num_inputs % 16 || basis->num_blocks < 0) {
    return AVAT3R_BAD_ARGUMENT;
  }
  const BasisKernels* kernels = basis_kernels(instruction_set);
  if (kernels == nullptr) return AVAT3R_BAD_ARGUMENT;
  alignas(64) float aligned[kMaxBasisInputs];
  std::copy(inputs, inputs + basis->num_inputs, aligned);
  const int num_tasks = (int)((basis->num_blocks + kTaskBlocks - 1) / kTaskBlocks);
  num_threads = std::clamp(num_threads, 1, ThreadPool::kMaxThreads);
  ThreadPool::instance().run(num_tasks, num_threads, [&](int task, int) {
    const int64_t end = std::min<int64_t>((task + 1) * (int64_t)kTaskBlocks, basis->num_blocks);
    for (int64_t i = task * (int64_t)kTaskBlocks; i < end; i++) {
      kernels->evaluate_block(*basis, basis->blocks[i], aligned, *outputs);
    }
  });
  return AVAT3R_OK;
}
