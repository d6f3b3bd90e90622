// The Gaussian rasterizer's entry points: memory, threads, tile lists. See splat_types.h for the
// flow.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "buffer.h"
#include "splat_types.h"
#include "thread_pool.h"

namespace avat3r {

extern const SplatKernels kSplatKernelsBaseline;
#if defined(__x86_64__)
extern const SplatKernels kSplatKernelsAvx2, kSplatKernelsAvx512;
#endif

namespace {

// 2^29 pairs are 4 GiB of lists: a sane scene has a few for each Gaussian.
constexpr int64_t kMaxPairs = int64_t{1} << 29;
constexpr int32_t kMaxImageSize = 65535 * kBlockSize;

const std::vector<const SplatKernels*>& available_kernels() {
  static const std::vector<const SplatKernels*> kernels = [] {
    std::vector<const SplatKernels*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx2 && avx512) found.push_back(&kSplatKernelsAvx512);
    if (avx2) found.push_back(&kSplatKernelsAvx2);
#endif
    found.push_back(&kSplatKernelsBaseline);
    return found;
  }();
  return kernels;
}

double now_ms() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double, std::milli>(Clock::now().time_since_epoch()).count();
}

struct CameraBuffers {
  Buffer<Splat> splats;
  Buffer<uint32_t> depth_keys, chunk_pairs, tile_counts;
  Buffer<TileBox> tile_boxes;
  Buffer<int64_t> chunk_visible, tile_begin;
  Buffer<uint64_t> entries, chunk_first_pair;
  Buffer<float> transmittance, pair_rows;
  Buffer<int32_t> last_entry;
};

CameraModel camera_model(const Avat3rSplatScene& scene, int camera) {
  const float* v = scene.viewmats + 16 * camera;
  const float* k = scene.intrinsics + 9 * camera;
  CameraModel m;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) m.rotation[3 * i + j] = v[4 * i + j];
    m.translation[i] = v[4 * i + 3];
  }
  m.fx = k[0], m.fy = k[4], m.cx = k[2], m.cy = k[5];
  const float margin_x = kFrustumMargin * scene.width, margin_y = kFrustumMargin * scene.height;
  m.x_max = (scene.width - m.cx + margin_x) / m.fx, m.x_min = -(m.cx + margin_x) / m.fx;
  m.y_max = (scene.height - m.cy + margin_y) / m.fy, m.y_min = -(m.cy + margin_y) / m.fy;
  return m;
}

struct TileGrid {
  int columns, rows;
  explicit TileGrid(const Avat3rSplatScene& scene)
      : columns((scene.width + kTileSize - 1) / kTileSize),
        rows((scene.height + kTileSize - 1) / kTileSize) {}
  int count() const { return columns * rows; }
  size_t difference_size() const { return (size_t)(columns + 1) * (rows + 1); }
};

bool is_valid(const Avat3rSplatScene* scene, const Avat3rSplatOptions* options) {
  if (scene == nullptr || options == nullptr) return false;
  const int channels = scene->num_colors + (scene->with_depth ? 1 : 0);
  return scene->num_gaussians >= 0 && scene->num_gaussians < INT32_MAX && scene->num_cameras >= 1 &&
         scene->width >= 1 && scene->height >= 1 && scene->width <= kMaxImageSize &&
         scene->height <= kMaxImageSize && scene->num_colors >= 0 && scene->num_colors <= 3 &&
         channels >= 1 && scene->near_plane > 0 && options->instruction_set >= -1 &&
         options->instruction_set < (int)available_kernels().size();
}

}  // namespace
}  // namespace avat3r

using namespace avat3r;

struct Avat3rSplatWorkspace {
  std::vector<std::unique_ptr<CameraBuffers>> buffers;
  std::vector<CameraLists> lists;
  std::vector<int> chunk_worker;  // which thread projected, and therefore bins, a chunk
  Buffer<uint64_t> sort_scratch;
  int64_t num_chunks = 0;
  bool kept = false;  // the lists serve a backward pass
  const SplatKernels* kernels = nullptr;

  void prepare(const Avat3rSplatScene& scene, const TileGrid& grid, int num_threads, bool keep);
  int64_t project(const Avat3rSplatScene& scene, const TileGrid& grid, int num_threads);
  int64_t bin(int camera, const TileGrid& grid, int num_threads);
  void blend(const Avat3rSplatScene& scene, const TileGrid& grid, const Avat3rSplatOptions& options,
             const Avat3rSplatImages& images, int num_threads);
  void backward(const Avat3rSplatScene& scene, const TileGrid& grid, int num_threads,
                const Avat3rSplatGradients& gradients);
};

void Avat3rSplatWorkspace::prepare(const Avat3rSplatScene& scene, const TileGrid& grid,
                                   int num_threads, bool keep) {
  num_chunks = (scene.num_gaussians + kGaussianChunk - 1) / kGaussianChunk;
  chunk_worker.assign(num_chunks, 0);
  while ((int)buffers.size() < scene.num_cameras)
    buffers.push_back(std::make_unique<CameraBuffers>());
  lists.resize(scene.num_cameras);
  const size_t n = scene.num_gaussians, pixels = (size_t)scene.width * scene.height;
  for (int c = 0; c < scene.num_cameras; c++) {
    CameraBuffers& b = *buffers[c];
    CameraLists& l = lists[c];
    l.camera = camera_model(scene, c);
    l.splats = b.splats.reserve(n);
    l.depth_keys = b.depth_keys.reserve(n);
    l.tile_boxes = b.tile_boxes.reserve(n);
    l.chunk_visible = b.chunk_visible.reserve(num_chunks);
    l.chunk_pairs = b.chunk_pairs.reserve(num_chunks);
    l.chunk_first_pair = b.chunk_first_pair.reserve(num_chunks);
    l.tile_begin = b.tile_begin.reserve(grid.count() + 1);
    l.transmittance = keep ? b.transmittance.reserve(pixels) : nullptr;
    l.last_entry = keep ? b.last_entry.reserve(pixels) : nullptr;
    const size_t counts = grid.difference_size() * num_threads;
    memset(b.tile_counts.reserve(counts), 0, counts * sizeof(uint32_t));
  }
}

int64_t Avat3rSplatWorkspace::project(const Avat3rSplatScene& scene, const TileGrid& grid,
                                      int num_threads) {
  std::vector<int64_t> invalid(num_chunks, 0);
  std::vector<uint32_t*> counts((size_t)num_threads * scene.num_cameras);
  for (int worker = 0; worker < num_threads; worker++) {
    for (int c = 0; c < scene.num_cameras; c++) {
      counts[worker * scene.num_cameras + c] =
          buffers[c]->tile_counts.data() + worker * grid.difference_size();
    }
  }
  ThreadPool::instance().run((int)num_chunks, num_threads, [&](int chunk, int worker) {
    const int64_t begin = chunk * kGaussianChunk;
    const int64_t end = std::min(scene.num_gaussians, begin + kGaussianChunk);
    invalid[chunk] =
        kernels->project(scene, lists.data(), begin, end, &counts[worker * scene.num_cameras]);
    chunk_worker[chunk] = worker;
  });
  int64_t total = 0;
  for (int64_t count : invalid) total += count;
  return total;
}

// Counting sort of the splats by tile. Inside a tile the blender sorts; returns the number of
// pairs.
int64_t Avat3rSplatWorkspace::bin(int camera, const TileGrid& grid, int num_threads) {
  CameraBuffers& b = *buffers[camera];
  CameraLists& l = lists[camera];
  const int columns = grid.columns, pitch = columns + 1;
  // Integrate the difference arrays in both directions; rows close up from pitch to columns.
  for (int worker = 0; worker < num_threads; worker++) {
    uint32_t* counts = b.tile_counts.data() + worker * grid.difference_size();
    for (int y = 0; y < grid.rows; y++) {
      uint32_t* row = counts + y * pitch;
      uint32_t sum = 0;
      for (int x = 0; x < columns; x++) {
        sum += row[x];
        row[x] = sum + (y > 0 ? row[x - pitch] : 0);
      }
    }
    for (int y = 1; y < grid.rows; y++) {
      memmove(counts + y * columns, counts + y * pitch, columns * sizeof(uint32_t));
    }
  }
  // Counts become the place where each thread writes its next entry of each tile.
  int64_t total = 0;
  for (int tile = 0; tile < grid.count(); tile++) {
    l.tile_begin[tile] = total;
    for (int worker = 0; worker < num_threads; worker++) {
      uint32_t& count = b.tile_counts.data()[worker * grid.difference_size() + tile];
      const uint32_t begin = (uint32_t)total;
      total += count;
      count = begin;
    }
  }
  l.tile_begin[grid.count()] = total;
  if (total > kMaxPairs) return total;
  l.entries = b.entries.reserve(total);
  ThreadPool::instance().run(num_threads, num_threads, [&](int share, int) {
    uint32_t* next = b.tile_counts.data() + share * grid.difference_size();
    for (int64_t chunk = 0; chunk < num_chunks; chunk++) {
      if (chunk_worker[chunk] != share) continue;
      const int64_t begin = chunk * kGaussianChunk, end = begin + l.chunk_visible[chunk];
      for (int64_t i = begin; i < end; i++) {
        const TileBox box = l.tile_boxes[i];
        const uint64_t entry = (uint64_t)l.depth_keys[i] << 32 | (uint32_t)i;
        for (int y = box.y0; y <= box.y1; y++) {
          for (int x = box.x0; x <= box.x1; x++) l.entries[next[y * columns + x]++] = entry;
        }
      }
    }
  });
  return total;
}

void Avat3rSplatWorkspace::blend(const Avat3rSplatScene& scene, const TileGrid& grid,
                                 const Avat3rSplatOptions& options, const Avat3rSplatImages& images,
                                 int num_threads) {
  int64_t longest = 0;
  for (const CameraLists& l : lists) {
    for (int tile = 0; tile < grid.count(); tile++) {
      longest = std::max(longest, l.tile_begin[tile + 1] - l.tile_begin[tile]);
    }
  }
  uint64_t* scratch = sort_scratch.reserve(longest * num_threads);
  ThreadPool::instance().run(
      grid.count() * scene.num_cameras, num_threads, [&](int index, int worker) {
        const int camera = index / grid.count();
        const BlendTask task = {&scene, &lists[camera], camera, index % grid.count()};
        kernels->blend_tile(task, options, images, scratch + longest * worker);
      });
}

void Avat3rSplatWorkspace::backward(const Avat3rSplatScene& scene, const TileGrid& grid,
                                    int num_threads, const Avat3rSplatGradients& gradients) {
  const size_t n = scene.num_gaussians;
  memset(gradients.means, 0, 3 * n * sizeof(float));
  memset(gradients.quats_wxyz, 0, 4 * n * sizeof(float));
  memset(gradients.scales, 0, 3 * n * sizeof(float));
  memset(gradients.opacities, 0, n * sizeof(float));
  if (scene.num_colors) memset(gradients.colors, 0, scene.num_colors * n * sizeof(float));
  ThreadPool& pool = ThreadPool::instance();
  for (int c = 0; c < scene.num_cameras; c++) {
    CameraLists& l = lists[c];
    uint64_t pairs = 0;
    for (int64_t chunk = 0; chunk < num_chunks; chunk++) {
      l.chunk_first_pair[chunk] = pairs;
      pairs += l.chunk_pairs[chunk];
    }
    l.pair_rows = buffers[c]->pair_rows.reserve(pairs * kPairRow);
    pool.run(num_threads, num_threads, [&](int share, int) {
      const uint64_t begin = pairs * share / num_threads, end = pairs * (share + 1) / num_threads;
      for (uint64_t i = begin; i < end; i++) l.pair_rows[i * kPairRow + kPairUsed] = 0.f;
    });
    pool.run(grid.count(), num_threads, [&](int tile, int) {
      kernels->blend_tile_backward({&scene, &l, c, tile}, gradients);
    });
    std::vector<double> viewmat(12 * num_chunks, 0.0);  // one sum a chunk, whoever computes it
    pool.run((int)num_chunks, num_threads, [&](int chunk, int) {
      const int64_t begin = chunk * kGaussianChunk;
      kernels->project_backward(scene, l, begin, begin + l.chunk_visible[chunk], gradients,
                                gradients.viewmats ? &viewmat[12 * (size_t)chunk] : nullptr);
    });
    if (gradients.viewmats == nullptr) continue;
    for (int k = 0; k < 16; k++) {
      double sum = 0;
      for (int64_t chunk = 0; k < 12 && chunk < num_chunks; chunk++) sum += viewmat[12 * chunk + k];
      gradients.viewmats[16 * c + k] = (float)sum;
    }
  }
}

const char* avat3r_instruction_set_name(int32_t index) {
  const auto& kernels = available_kernels();
  return index >= 0 && index < (int)kernels.size() ? kernels[index]->name : nullptr;
}

Avat3rSplatWorkspace* avat3r_splat_workspace_create() {
  return new (std::nothrow) Avat3rSplatWorkspace();
}

void avat3r_splat_workspace_destroy(Avat3rSplatWorkspace* workspace) { delete workspace; }

int32_t avat3r_splat_forward(Avat3rSplatWorkspace* workspace, const Avat3rSplatScene* scene,
                             const Avat3rSplatOptions* options, const Avat3rSplatImages* images,
                             Avat3rSplatStats* stats) try {
  if (workspace == nullptr || images == nullptr || stats == nullptr || !is_valid(scene, options)) {
    return AVAT3R_BAD_ARGUMENT;
  }
  *stats = {};
  workspace->kept = false;
  workspace->kernels = available_kernels()[std::max(0, options->instruction_set)];
  const int num_threads = std::clamp(options->num_threads, 1, ThreadPool::kMaxThreads);
  const TileGrid grid(*scene);
  const double start = now_ms();
  workspace->prepare(*scene, grid, num_threads, options->keep_for_backward);
  stats->num_invalid = workspace->project(*scene, grid, num_threads);
  const double projected = now_ms();
  for (int c = 0; c < scene->num_cameras; c++) {
    const int64_t pairs = workspace->bin(c, grid, num_threads);
    if (pairs > kMaxPairs) return AVAT3R_TOO_MANY_PAIRS;
    stats->num_pairs += pairs;
    for (int64_t k = 0; k < workspace->num_chunks; k++) {
      stats->num_visible += workspace->lists[c].chunk_visible[k];
    }
  }
  const double binned = now_ms();
  workspace->blend(*scene, grid, *options, *images, num_threads);
  workspace->kept = options->keep_for_backward;
  stats->project_ms = projected - start;
  stats->sort_ms = binned - projected;
  stats->blend_ms = now_ms() - binned;
  return AVAT3R_OK;
} catch (const std::bad_alloc&) {
  return AVAT3R_OUT_OF_MEMORY;
}

int32_t avat3r_splat_backward(Avat3rSplatWorkspace* workspace, const Avat3rSplatScene* scene,
                              const Avat3rSplatOptions* options,
                              const Avat3rSplatGradients* gradients) try {
  if (workspace == nullptr || gradients == nullptr || gradients->channels == nullptr ||
      !is_valid(scene, options) || (int)workspace->lists.size() != scene->num_cameras) {
    return AVAT3R_BAD_ARGUMENT;
  }
  if (!workspace->kept) return AVAT3R_NO_FORWARD;
  const int num_threads = std::clamp(options->num_threads, 1, ThreadPool::kMaxThreads);
  workspace->backward(*scene, TileGrid(*scene), num_threads, *gradients);
  return AVAT3R_OK;
} catch (const std::bad_alloc&) {
  return AVAT3R_OUT_OF_MEMORY;
}
