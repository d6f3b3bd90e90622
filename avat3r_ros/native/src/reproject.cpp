// Entry point of the reprojection: cameras to constants, depth guesses, rows on threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "reproject_types.h"
#include "thread_pool.h"

namespace avat3r {

extern const ReprojectKernels kReprojectKernelsBaseline;
#if defined(__x86_64__)
extern const ReprojectKernels kReprojectKernelsAvx2, kReprojectKernelsAvx512;
#endif

namespace {

constexpr int kMaxImageSize = 16384;
constexpr int kRowsOfTask = 16;
constexpr int kSampleStep = 4;  // source pixels between two depths, where both focal lengths agree

const ReprojectKernels* reproject_kernels(int32_t instruction_set) {
  const char* name = avat3r_instruction_set_name(std::max(0, instruction_set));
  if (name == nullptr) return nullptr;
#if defined(__x86_64__)
  if (!strcmp(name, kReprojectKernelsAvx512.name)) return &kReprojectKernelsAvx512;
  if (!strcmp(name, kReprojectKernelsAvx2.name)) return &kReprojectKernelsAvx2;
#endif
  return &kReprojectKernelsBaseline;
}

// K without skew, and its inverse.
struct Pinhole {
  double m[3][3] = {}, inverse[3][3] = {};
  explicit Pinhole(const double* k) {
    m[0][0] = k[0], m[1][1] = k[4], m[0][2] = k[2], m[1][2] = k[5], m[2][2] = 1;
    inverse[0][0] = 1 / k[0], inverse[1][1] = 1 / k[4], inverse[2][2] = 1;
    inverse[0][2] = -k[2] / k[0], inverse[1][2] = -k[5] / k[4];
  }
};

// to * rotation * from, and to * translation.
template <class Matrix>
void pixel_map(const double (&to)[3][3], const double* pose, const double (&from)[3][3],
               Matrix matrix, float* vector) {
  for (int i = 0; i < 3; i++) {
    double row[3] = {}, sum = 0;
    for (int j = 0; j < 3; j++) {
      for (int k = 0; k < 3; k++) row[j] += to[i][k] * pose[4 * k + j];
      sum += to[i][j] * pose[4 * j + 3];
    }
    for (int j = 0; j < 3; j++) {
      double value = 0;
      for (int k = 0; k < 3; k++) value += row[k] * from[k][j];
      matrix[i][j] = (float)value;
    }
    vector[i] = (float)sum;
  }
}

ReprojectCamera reproject_camera(const Avat3rReprojection& job, int index) {
  const Pinhole layer(job.layer_intrinsics + 9 * index), target(job.intrinsics + 9 * index);
  const double* layer_from_target = job.layer_from_target + 16 * index;
  double target_from_layer[16] = {};
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) {
      target_from_layer[4 * i + j] = layer_from_target[4 * j + i];
      target_from_layer[4 * i + 3] -= layer_from_target[4 * j + i] * layer_from_target[4 * j + 3];
    }
  }
  ReprojectCamera r;
  pixel_map(layer.m, layer_from_target, target.inverse, r.ray, r.offset);
  pixel_map(target.m, target_from_layer, layer.inverse, r.forward, r.shift);
  for (int j = 0; j < 3; j++) {
    double value = 0;
    for (int k = 0; k < 3; k++) value += target_from_layer[8 + k] * layer.inverse[k][j];
    r.depth_row[j] = (float)value;
  }
  r.depth_offset = (float)target_from_layer[11];
  return r;
}

// Least depth that lands in each cell or in one of its neighbours.
void guess_depths(const Avat3rReprojection& job, const ReprojectCamera& camera, int index, int step,
                  int columns, int rows, float* cells) {
  std::vector<float> nearest((size_t)columns * rows, kNoDepth);
  const float* depths = job.layer_depths + (size_t)index * job.layer_width * job.layer_height;
  const auto& m = camera.forward;
  for (int y = step / 2; y < job.layer_height; y += step) {
    const float* line = depths + (size_t)y * job.layer_width;
    const float py = y + 0.5f;
    for (int x = step / 2; x < job.layer_width; x += step) {
      const float z = line[x], px = x + 0.5f;
      if (!(z > 0)) continue;
      const float target_z = z * (m[2][0] * px + m[2][1] * py + m[2][2]) + camera.shift[2];
      if (!(target_z > 1e-6f)) continue;
      const float inverse = 1.f / (target_z * kCellSize);
      const float column = (z * (m[0][0] * px + m[0][1] * py + m[0][2]) + camera.shift[0]) * inverse;
      const float row = (z * (m[1][0] * px + m[1][1] * py + m[1][2]) + camera.shift[1]) * inverse;
      if (!(column >= 0 && column < columns && row >= 0 && row < rows)) continue;
      float& cell = nearest[(int)row * columns + (int)column];
      cell = std::min(cell, target_z);
    }
  }
  for (int row = 0; row < rows; row++) {
    for (int column = 0; column < columns; column++) {
      float least = kNoDepth;
      for (int r = std::max(0, row - 1); r <= std::min(rows - 1, row + 1); r++) {
        for (int c = std::max(0, column - 1); c <= std::min(columns - 1, column + 1); c++) {
          least = std::min(least, nearest[r * columns + c]);
        }
      }
      cells[row * columns + column] = least;
    }
  }
}

bool is_valid(const Avat3rReprojection* job) {
  if (job == nullptr || job->layer_rgba == nullptr || job->layer_depths == nullptr ||
      job->images == nullptr || job->layer_intrinsics == nullptr || job->intrinsics == nullptr ||
      job->layer_from_target == nullptr || (job->background_images && job->with_alpha)) {
    return false;
  }
  for (int size : {job->width, job->height, job->layer_width, job->layer_height}) {
    if (size < 1 || size > kMaxImageSize) return false;
  }
  return job->num_cameras >= 0;
}

}  // namespace
}  // namespace avat3r

using namespace avat3r;

int32_t avat3r_reproject(const Avat3rReprojection* job, int32_t num_threads,
                         int32_t instruction_set, int64_t* num_uncovered) try {
  const ReprojectKernels* kernels = reproject_kernels(instruction_set);
  if (!is_valid(job) || kernels == nullptr || num_uncovered == nullptr) return AVAT3R_BAD_ARGUMENT;
  const int columns = (job->width + kCellSize - 1) / kCellSize;
  const int rows = (job->height + kCellSize - 1) / kCellSize;
  std::vector<float> cells((size_t)columns * rows * job->num_cameras);
  std::vector<ReprojectCamera> cameras(job->num_cameras);
  num_threads = std::clamp(num_threads, 1, ThreadPool::kMaxThreads);
  ThreadPool::instance().run(job->num_cameras, num_threads, [&](int i, int) {
    cameras[i] = reproject_camera(*job, i);
    const double ratio = job->layer_intrinsics[9 * i] / job->intrinsics[9 * i];
    const int step = (int)std::clamp(kSampleStep * ratio, 1.0, (double)kSampleStep);
    guess_depths(*job, cameras[i], i, step, columns, rows, &cells[(size_t)columns * rows * i]);
  });
  std::atomic<int64_t> uncovered{0};
  const int tasks = (job->height + kRowsOfTask - 1) / kRowsOfTask;
  ThreadPool::instance().run(tasks * job->num_cameras, num_threads, [&](int task, int) {
    const int i = task / tasks, begin = task % tasks * kRowsOfTask;
    const ReprojectTask one = {job, &cameras[i], i, &cells[(size_t)columns * rows * i], columns};
    int64_t sum = 0;
    for (int y = begin; y < std::min(begin + kRowsOfTask, job->height); y++) {
      sum += kernels->row(one, y);
    }
    uncovered += sum;
  });
  *num_uncovered = uncovered;
  return AVAT3R_OK;
} catch (const std::bad_alloc&) {
  return AVAT3R_OUT_OF_MEMORY;
}
