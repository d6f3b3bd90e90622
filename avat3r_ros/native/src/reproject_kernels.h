// The reprojection's inner loop, compiled once for each instruction set: reproject_kernels_*.cpp
// define AVAT3R_REPROJECT_KERNELS, the name of their table, and include this file.
#include <cstring>

#include "reproject_types.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace avat3r {
namespace {

#include "simd.h"

constexpr int kUpdates = 2;  // even: a hidden surface is then filled with what is beside the hider
constexpr int kEvenBytes = 0x00ff00ff;

typedef uint16_t WordPart __attribute__((vector_size(4 * kPartLanes)));

AVAT3R_INLINE Ints gather(const int32_t* base, Ints index) {
  Ints r;
#if defined(__AVX512F__)
  r.part[0] = (IntPart)_mm512_i32gather_epi32((__m512i)index.part[0], base, 4);
#elif defined(__AVX2__)
  EACH_PART r.part[i] = (IntPart)_mm256_i32gather_epi32(base, (__m256i)index.part[i], 4);
#else
  EACH_PART for (int j = 0; j < kPartLanes; j++) r.part[i][j] = base[index.part[i][j]];
#endif
  return r;
}

AVAT3R_INLINE Floats gather(const float* base, Ints index) {
  return as_floats(gather((const int32_t*)base, index));
}

AVAT3R_INLINE Ints times(Ints a, int32_t factor) {
  EACH_PART a.part[i] = a.part[i] * factor;
  return a;
}

// The same number in both halves of every lane.
AVAT3R_INLINE Ints in_both_halves(Ints a) { return a | shift_left(a, 16); }

// Halves of the lanes, 0..255 each, mixed: a where w is 0, b where it is 256.
AVAT3R_INLINE Ints mix(Ints a, Ints b, Ints w) {
  EACH_PART {
    const WordPart weight = (WordPart)w.part[i];
    const WordPart sum = (WordPart)a.part[i] * (256 - weight) + (WordPart)b.part[i] * weight + 128;
    a.part[i] = (IntPart)(sum >> 8);
  }
  return a;
}

// a + b * weight / 255 in the halves of the lanes.
AVAT3R_INLINE Ints add_share(Ints a, Ints b, Ints weight) {
  EACH_PART {
    const WordPart product = (WordPart)b.part[i] * (WordPart)weight.part[i] + 128;
    a.part[i] = (IntPart)((WordPart)a.part[i] + ((product + (product >> 8)) >> 8));
  }
  return a;
}

// Two of the four channels of a pixel, in the halves of its lane.
AVAT3R_INLINE Ints even_bytes(Ints pixels) { return pixels & kEvenBytes; }
AVAT3R_INLINE Ints odd_bytes(Ints pixels) { return shift_right(pixels, 8) & kEvenBytes; }

// Red, blue and green, alpha of 16 pixels.
struct Pixels {
  Ints even, odd;
};

AVAT3R_INLINE Pixels bilinear(const int32_t* rgba, int width, int height, Floats x, Floats y) {
  const Floats zero = broadcast(0.f);
  x = smaller(larger(x - 0.5f, zero), broadcast((float)(width - 1)));
  y = smaller(larger(y - 0.5f, zero), broadcast((float)(height - 1)));
  // The last column and row have no neighbour: they are reached from the ones before, weight 256.
  const Floats left_limit = broadcast((float)(width > 1 ? width - 2 : 0));
  const Floats top_limit = broadcast((float)(height > 1 ? height - 2 : 0));
  const Ints left = to_ints(smaller(x, left_limit)), top = to_ints(smaller(y, top_limit));
  const Ints wx = in_both_halves(to_ints((x - to_floats(left)) * 256.f + 0.5f));
  const Ints wy = in_both_halves(to_ints((y - to_floats(top)) * 256.f + 0.5f));
  const Ints corner = times(top, width) + left;
  const int right = width > 1 ? 1 : 0, below = height > 1 ? width : 0;
  const Ints a = gather(rgba, corner), b = gather(rgba + right, corner);
  const Ints c = gather(rgba + below, corner), d = gather(rgba + below + right, corner);
  return {mix(mix(even_bytes(a), even_bytes(b), wx), mix(even_bytes(c), even_bytes(d), wx), wy),
          mix(mix(odd_bytes(a), odd_bytes(b), wx), mix(odd_bytes(c), odd_bytes(d), wx), wy)};
}

// Write `count` pixels, four bytes each in `lanes`, as `channels` bytes a pixel.
AVAT3R_INLINE void write_pixels(const int32_t* lanes, uint8_t* out, int channels, int count) {
  if (channels == 4) {
    memcpy(out, lanes, 4 * count);
    return;
  }
  uint8_t bytes[3 * kLanes + 1];  // each pixel is written with one byte too many
  for (int i = 0; i < kLanes; i++) memcpy(bytes + 3 * i, &lanes[i], 4);
  memcpy(out, bytes, 3 * count);
}

// Divide the colours by alpha, for four bytes a pixel.
AVAT3R_INLINE Ints straight(Pixels p, bool bgr) {
  const Ints alpha = shift_right(p.odd, 16) & 0xff;
  const Floats inverse = 255.f / larger(to_floats(alpha), broadcast(1.f));
  const Floats white = broadcast(255.f);
  const Ints red = to_ints(smaller(to_floats(p.even & 0xff) * inverse + 0.5f, white));
  const Ints green = to_ints(smaller(to_floats(p.odd & 0xff) * inverse + 0.5f, white));
  const Ints blue =
      to_ints(smaller(to_floats(shift_right(p.even, 16) & 0xff) * inverse + 0.5f, white));
  const Ints first = bgr ? blue : red, third = bgr ? red : blue;
  return first | shift_left(green, 8) | shift_left(third, 16) | shift_left(alpha, 24);
}

AVAT3R_INLINE Ints packed(Pixels p, bool bgr) {
  if (bgr) p.even = shift_left(p.even, 16) | (shift_right(p.even, 16) & 0xff);
  return p.even | shift_left(p.odd, 8);
}

alignas(64) const float kLaneCenters[kLanes] = {0.5f, 1.5f, 2.5f,  3.5f,  4.5f,  5.5f,  6.5f,  7.5f,
                                                8.5f, 9.5f, 10.5f, 11.5f, 12.5f, 13.5f, 14.5f, 15.5f};

int64_t reproject_row(const ReprojectTask& task, int y) {
  const Avat3rReprojection& job = *task.job;
  const ReprojectCamera& camera = *task.camera;
  const int width = job.width, channels = job.with_alpha ? 4 : 3;
  const size_t source_pixels = (size_t)job.layer_width * job.layer_height;
  const float* depths = job.layer_depths + task.index * source_pixels;
  const int32_t* rgba = (const int32_t*)job.layer_rgba + task.index * source_pixels;
  const size_t row = ((size_t)task.index * job.height + y) * width;
  uint8_t* out = job.images + row * channels;
  const uint8_t* behind = job.background_images ? job.background_images + row * 3 : nullptr;
  const uint8_t* color = job.background;
  const Pixels background = {broadcast_int(color[0] | color[2] << 16), broadcast_int(color[1])};
  alignas(64) int32_t empty_lanes[kLanes], lanes[kLanes];
  alignas(64) float guess[kLanes];
  const Ints nothing = job.with_alpha ? broadcast_int(0) : packed(background, job.bgr);
  store(empty_lanes, nothing);

  const float* cells = task.cells + y / kCellSize * task.columns;
  const float py = y + 0.5f;
  const Floats max_x = broadcast((float)job.layer_width), max_y = broadcast((float)job.layer_height);
  const Floats last_column = max_x - 1.f, last_row = max_y - 1.f, zero = broadcast(0.f);
  int64_t uncovered = 0;
  for (int begin = 0; begin < width; begin += kLanes) {
    const int count = width - begin < kLanes ? width - begin : kLanes;
    bool any_near = false;
    for (int i = 0; i < kLanes; i += kCellSize) {
      const int column = (begin + i) / kCellSize;
      const float z = column < task.columns ? cells[column] : kNoDepth;
      any_near |= z < kNoDepth;
      for (int j = 0; j < kCellSize; j++) guess[i + j] = z;
    }
    if (!any_near) {
      if (behind != nullptr) {
        const int first = job.bgr ? 2 : 0;
        for (int i = 0; i < count; i++) {
          const uint8_t* from = behind + 3 * (begin + i);
          uint8_t* to = out + 3 * (begin + i);
          to[0] = from[first], to[1] = from[1], to[2] = from[2 - first];
        }
      } else {
        write_pixels(empty_lanes, out + begin * channels, channels, count);
      }
      if (job.depths) memset(job.depths + row + begin, 0, count * sizeof(float));
      continue;
    }
    const Floats px = load(kLaneCenters) + (float)begin;
    Floats ray[3];
    for (int k = 0; k < 3; k++) {
      ray[k] = multiply_add(px, broadcast(camera.ray[k][0]),
                            broadcast(camera.ray[k][1] * py + camera.ray[k][2]));
    }
    Floats z = load(guess), x, source_y;
    const Mask near = above(broadcast(kNoDepth), z);
    const auto project = [&] {
      const Floats w = multiply_add(z, ray[2], broadcast(camera.offset[2]));
      const Floats inverse = 1.f / larger(w, broadcast(1e-6f));
      x = multiply_add(z, ray[0], broadcast(camera.offset[0])) * inverse;
      source_y = multiply_add(z, ray[1], broadcast(camera.offset[1])) * inverse;
    };
    project();
    for (int update = 0; update < kUpdates; update++) {
      // NaN and what lies outside are pulled to the edge; smaller() and larger() take care of both.
      const Ints column = to_ints(smaller(larger(x, zero), last_column));
      const Ints line = to_ints(smaller(larger(source_y, zero), last_row));
      const Floats found = gather(depths, times(line, job.layer_width) + column);
      const Floats slope =
          multiply_add(x, broadcast(camera.depth_row[0]),
                       multiply_add(source_y, broadcast(camera.depth_row[1]),
                                    broadcast(camera.depth_row[2])));
      const Floats there = multiply_add(found, slope, broadcast(camera.depth_offset));
      z = select(above(found, zero), there, z);
      project();
    }
    const Mask inside = at_least(x, zero) & at_least(max_x, x) & at_least(source_y, zero) &
                        at_least(max_y, source_y) & near;
    uncovered += __builtin_popcount((lane_bits(near) & ~lane_bits(inside)) & ((1u << count) - 1));
    Pixels p = bilinear(rgba, job.layer_width, job.layer_height, x, source_y);
    p.even = select(inside, p.even, broadcast_int(0));
    p.odd = select(inside, p.odd, broadcast_int(0));
    const Ints alpha = shift_right(p.odd, 16) & 0xff;
    if (job.depths) {
      alignas(64) float row_depths[kLanes];
      const Mask solid = at_least(alpha, broadcast_int(128));
      store(row_depths, zero_unless(solid, z));
      memcpy(job.depths + row + begin, row_depths, count * sizeof(float));
    }
    if (job.with_alpha) {
      store(lanes, straight(p, job.bgr));
    } else {
      Pixels rest = background;
      if (behind != nullptr) {
        alignas(64) int32_t even[kLanes] = {}, odd[kLanes] = {};
        for (int i = 0; i < count; i++) {
          const uint8_t* from = behind + 3 * (begin + i);
          even[i] = from[0] | from[2] << 16, odd[i] = from[1];
        }
        rest = {load(even), load(odd)};
      }
      const Ints share = in_both_halves(broadcast_int(255) - alpha);
      p.even = add_share(p.even, rest.even, share);
      p.odd = add_share(p.odd & 0xff, rest.odd, share);
      store(lanes, packed(p, job.bgr));
    }
    write_pixels(lanes, out + begin * channels, channels, count);
  }
  return uncovered;
}

}  // namespace

extern const ReprojectKernels AVAT3R_REPROJECT_KERNELS;
const ReprojectKernels AVAT3R_REPROJECT_KERNELS = {AVAT3R_REPROJECT_KERNELS_NAME, reproject_row};

}  // namespace avat3r
