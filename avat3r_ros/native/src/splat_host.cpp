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
  Buffer<TileBox> boxes;
  Buffer<Entry> entries;
  Buffer<uint32_t> tile_counts, first_pair;
  Buffer<int64_t> tile_begin;
  Buffer<float> depths, transmittance, pair_rows;
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

// Append the splats to the lists of the tiles in rows [row_begin, row_end); `next` is where each
// list goes on.
void fill_rows(const CameraLists& l, int64_t num_splats, int columns, int row_begin, int row_end,
               uint32_t* next) {
  const TileBox* boxes = l.boxes;
  const float* depths = l.depths;
  Entry* entries = l.entries;
  for (int64_t i = 0; i < num_splats; i++) {
    const TileBox box = boxes[i];
    if (!box.visible()) continue;
    uint32_t depth;
    memcpy(&depth, &depths[i], sizeof depth);
    const Entry entry = (Entry)depth << 32 | (Entry)i;
    const int y_end = std::min(box.y1 + 1, row_end);
    for (int y = std::max<int>(box.y0, row_begin); y < y_end; y++) {
      for (int x = box.x0; x <= box.x1; x++) entries[next[y * columns + x]++] = entry;
    }
  }
}

}  // namespace
}  // namespace avat3r

using namespace avat3r;

struct Avat3rSplatWorkspace {
  std::vector<std::unique_ptr<CameraBuffers>> buffers;
  std::vector<CameraLists> lists;
  Buffer<Entry> sort_scratch;
  int64_t num_gaussians = 0, num_chunks = 0;
  bool kept = false;  // the lists serve a backward pass
  const SplatKernels* kernels = nullptr;

  void prepare(const Avat3rSplatScene& scene, const TileGrid& grid, int num_threads, bool keep);
  ProjectCounts project(const Avat3rSplatScene& scene, const TileGrid& grid, int num_threads);
  int64_t count_pairs(int camera, const TileGrid& grid, int num_threads);
  void bin(int camera, const TileGrid& grid, int num_threads);
  void blend(const Avat3rSplatScene& scene, const TileGrid& grid, const Avat3rSplatOptions& options,
             const Avat3rSplatImages& images, int num_threads);
  uint32_t number_pairs(int camera, int num_threads);
  void backward(const Avat3rSplatScene& scene, const TileGrid& grid, int num_threads,
                const Avat3rSplatGradients& gradients);
};

void Avat3rSplatWorkspace::prepare(const Avat3rSplatScene& scene, const TileGrid& grid,
                                   int num_threads, bool keep) {
  num_gaussians = scene.num_gaussians;
  num_chunks = (scene.num_gaussians + kGaussianChunk - 1) / kGaussianChunk;
  while ((int)buffers.size() < scene.num_cameras)
    buffers.push_back(std::make_unique<CameraBuffers>());
  lists.resize(scene.num_cameras);
  const size_t n = scene.num_gaussians, pixels = (size_t)scene.width * scene.height;
  for (int c = 0; c < scene.num_cameras; c++) {
    CameraBuffers& b = *buffers[c];
    CameraLists& l = lists[c];
    l.camera = camera_model(scene, c);
    // The last 16 lanes are written whole.
    l.splats = b.splats.reserve(n + 16);
    l.depths = b.depths.reserve(n + 16);
    l.boxes = b.boxes.reserve(n);
    l.tile_begin = b.tile_begin.reserve(grid.count() + 1);
    l.transmittance = keep ? b.transmittance.reserve(pixels) : nullptr;
    l.last_entry = keep ? b.last_entry.reserve(pixels) : nullptr;
    const size_t counts = grid.difference_size() * num_threads;
    memset(b.tile_counts.reserve(counts), 0, counts * sizeof(uint32_t));
  }
}

ProjectCounts Avat3rSplatWorkspace::project(const Avat3rSplatScene& scene, const TileGrid& grid,
                                            int num_threads) {
  std::vector<ProjectCounts> chunks(num_chunks);
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
    chunks[chunk] =
        kernels->project(scene, lists.data(), begin, end, &counts[worker * scene.num_cameras]);
  });
  ProjectCounts total = {};
  for (const ProjectCounts& counts : chunks) {
    total.visible += counts.visible, total.invalid += counts.invalid;
  }
  return total;
}

// Turn what the projection counted into the beginnings of the tiles' lists.
int64_t Avat3rSplatWorkspace::count_pairs(int camera, const TileGrid& grid, int num_threads) {
  uint32_t* counts = buffers[camera]->tile_counts.data();
  for (int worker = 1; worker < num_threads; worker++) {
    const uint32_t* other = counts + worker * grid.difference_size();
    for (size_t i = 0; i < grid.difference_size(); i++) counts[i] += other[i];
  }
  // Integrate the difference array in both directions.
  CameraLists& l = lists[camera];
  const int pitch = grid.columns + 1;
  int64_t total = 0;
  for (int y = 0; y < grid.rows; y++) {
    uint32_t* row = counts + y * pitch;
    uint32_t sum = 0;
    for (int x = 0; x < grid.columns; x++) {
      sum += row[x];
      row[x] = sum + (y > 0 ? row[x - pitch] : 0);
      l.tile_begin[y * grid.columns + x] = total;
      total += row[x];
    }
  }
  l.tile_begin[grid.count()] = total;
  return total;
}

// Append the splats to the lists of their tiles.
void Avat3rSplatWorkspace::bin(int camera, const TileGrid& grid, int num_threads) {
  CameraBuffers& b = *buffers[camera];
  CameraLists& l = lists[camera];
  const int64_t total = l.tile_begin[grid.count()];
  l.entries = b.entries.reserve(total);
  uint32_t* next = b.tile_counts.data();
  for (int tile = 0; tile < grid.count(); tile++) next[tile] = (uint32_t)l.tile_begin[tile];
  // Each thread fills whole rows of tiles, with about as many pairs as the others.
  std::vector<int> first_row(num_threads + 1, grid.rows);
  for (int row = grid.rows - 1, share = num_threads - 1; share >= 0; share--) {
    while (row > 0 && l.tile_begin[row * grid.columns] * num_threads > total * share) row--;
    first_row[share] = share == 0 ? 0 : row;
  }
  ThreadPool::instance().run(num_threads, num_threads, [&](int share, int) {
    fill_rows(l, num_gaussians, grid.columns, first_row[share], first_row[share + 1], next);
  });
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
  Entry* scratch = sort_scratch.reserve(longest * num_threads);
  ThreadPool::instance().run(
      grid.count() * scene.num_cameras, num_threads, [&](int index, int worker) {
        const int camera = index / grid.count();
        const BlendTask task = {&scene, &lists[camera], camera, index % grid.count()};
        kernels->blend_tile(task, options, images, scratch + longest * worker);
      });
}

// Give every visible splat its rows, in the order of its tiles; returns their number.
uint32_t Avat3rSplatWorkspace::number_pairs(int camera, int num_threads) {
  CameraLists& l = lists[camera];
  l.first_pair = buffers[camera]->first_pair.reserve(num_gaussians);
  std::vector<uint32_t> chunk_pairs(num_chunks + 1, 0);
  for (const bool counting : {true, false}) {
    ThreadPool::instance().run((int)num_chunks, num_threads, [&](int chunk, int) {
      uint32_t pairs = counting ? 0 : chunk_pairs[chunk];
      const int64_t begin = chunk * kGaussianChunk;
      for (int64_t i = begin; i < std::min(begin + kGaussianChunk, num_gaussians); i++) {
        if (!l.boxes[i].visible()) continue;
        if (!counting) l.first_pair[i] = pairs;
        pairs += l.boxes[i].num_tiles();
      }
      if (counting) chunk_pairs[chunk + 1] = pairs;
    });
    for (int64_t k = 0; counting && k < num_chunks; k++) chunk_pairs[k + 1] += chunk_pairs[k];
  }
  return chunk_pairs[num_chunks];
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
    const uint32_t pairs = number_pairs(c, num_threads);
    l.pair_rows = buffers[c]->pair_rows.reserve((size_t)pairs * kPairRow);
    pool.run(num_threads, num_threads, [&](int share, int) {
      const uint64_t begin = (uint64_t)pairs * share / num_threads;
      const uint64_t end = (uint64_t)pairs * (share + 1) / num_threads;
      for (uint64_t i = begin; i < end; i++) l.pair_rows[i * kPairRow + kPairUsed] = 0.f;
    });
    pool.run(grid.count(), num_threads, [&](int tile, int) {
      kernels->blend_tile_backward({&scene, &l, c, tile}, gradients);
    });
    std::vector<double> viewmat(12 * num_chunks, 0.0);  // one sum a chunk, whoever computes it
    pool.run((int)num_chunks, num_threads, [&](int chunk, int) {
      const int64_t begin = chunk * kGaussianChunk;
      const int64_t end = std::min(begin + kGaussianChunk, scene.num_gaussians);
      kernels->project_backward(scene, l, begin, end, gradients,
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
  if (workspace == nullptr || images == nullptr || stats == nullptr || !is_valid(scene, options) ||
      (images->depths != nullptr && !scene->with_depth)) {
    return AVAT3R_BAD_ARGUMENT;
  }
  *stats = {};
  workspace->kept = false;
  workspace->kernels = available_kernels()[std::max(0, options->instruction_set)];
  const int num_threads = std::clamp(options->num_threads, 1, ThreadPool::kMaxThreads);
  const TileGrid grid(*scene);
  const double start = now_ms();
  workspace->prepare(*scene, grid, num_threads, options->keep_for_backward);
  const ProjectCounts counts = workspace->project(*scene, grid, num_threads);
  stats->num_visible = counts.visible, stats->num_invalid = counts.invalid;
  const double projected = now_ms();
  for (int c = 0; c < scene->num_cameras; c++) {
    const int64_t pairs = workspace->count_pairs(c, grid, num_threads);
    if (pairs > kMaxPairs) return AVAT3R_TOO_MANY_PAIRS;
    workspace->bin(c, grid, num_threads);
    stats->num_pairs += pairs;
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
