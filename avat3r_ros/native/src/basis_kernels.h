// The compiled animation's inner loops, compiled once for each instruction set:
// basis_kernels_*.cpp define AVAT3R_BASIS_KERNELS, the name of their table, and include this file.
// See basis_types.h for the flow and the layout.
#include <cstring>

#include "basis_types.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace avat3r {
namespace {

#include "simd.h"

constexpr float kMetresPerMillimetre = 1e-3f;
constexpr float kTiny = 1e-20f;  // keeps quotients of collapsed discs finite

// 16 half floats, at any address.
AVAT3R_INLINE Floats load_halves(const uint16_t* halves) {
  Floats r;
#if defined(__AVX512F__)
  r.part[0] = (FloatPart)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)halves));
#elif defined(__F16C__)
  EACH_PART r.part[i] =
      (FloatPart)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(halves + kPartLanes * i)));
#else
  // Exponent and mantissa moved into a float's place are 2^112 times too small; subnormals too.
  typedef uint16_t HalfPart __attribute__((vector_size(2 * kPartLanes)));
  EACH_PART {
    HalfPart half;
    memcpy(&half, halves + kPartLanes * i, sizeof(half));
    const IntPart bits = __builtin_convertvector(half, IntPart);
    const FloatPart magnitude = (FloatPart)((bits & 0x7fff) << 13) * 0x1p112f;
    r.part[i] = (FloatPart)((IntPart)magnitude | (bits & 0x8000) << 16);
  }
#endif
  return r;
}

// Add `rank` components of W rows to W vectors.
template <int W>
AVAT3R_INLINE const uint16_t* add_components(Floats* sums, const uint16_t* stream,
                                             const float* coefficients, int rank) {
  for (int k = 0; k < rank; k++, stream += W * kLanes) {
    const Floats coefficient = broadcast(coefficients[k]);
    for (int w = 0; w < W; w++) {
      sums[w] = multiply_add(load_halves(stream + w * kLanes), coefficient, sums[w]);
    }
  }
  return stream;
}

// Resting values and components: W vectors out of a stream.
template <int W>
AVAT3R_INLINE const uint16_t* sum_rows(Floats* sums, const uint16_t* stream,
                                       const float* coefficients, int rank) {
  for (int w = 0; w < W; w++) sums[w] = load_halves(stream + w * kLanes);
  return add_components<W>(sums, stream + W * kLanes, coefficients, rank);
}

// Columns to rows: lane i of W vectors becomes W numbers at out + stride * i.
template <int W>
AVAT3R_INLINE void write_rows(const Floats* columns, float* out, int stride, int count) {
  alignas(64) float lanes[W][kLanes];
  for (int w = 0; w < W; w++) store(lanes[w], columns[w]);
  for (int i = 0; i < count; i++) {
    for (int w = 0; w < W; w++) out[stride * i + w] = lanes[w][i];
  }
}

struct Vector {
  Floats x, y, z;
};
AVAT3R_INLINE Vector cross(const Vector& a, const Vector& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
AVAT3R_INLINE Floats dot(const Vector& a, const Vector& b) {
  return multiply_add(a.x, b.x, multiply_add(a.y, b.y, a.z * b.z));
}
AVAT3R_INLINE Vector scaled(const Vector& a, Floats s) { return {a.x * s, a.y * s, a.z * s}; }

// Unit quaternion (wxyz) of the rotation with these columns: of the four ways to write it, the one
// whose divisor is largest (Shepperd 1978).
AVAT3R_INLINE void quaternion(const Vector& x, const Vector& y, const Vector& z, Floats* q) {
  const Floats one = broadcast(1.f);
  const Floats w4 = one + x.x + y.y + z.z, x4 = one + x.x - y.y - z.z;
  const Floats y4 = one - x.x + y.y - z.z, z4 = one - x.x - y.y + z.z;
  const Floats wx = y.z - z.y, wy = z.x - x.z, wz = x.y - y.x;
  const Floats xy = x.y + y.x, xz = x.z + z.x, yz = y.z + z.y;
  q[0] = w4, q[1] = wx, q[2] = wy, q[3] = wz;
  Floats largest = w4;
  const auto prefer = [&](Floats size, Floats a, Floats b, Floats c, Floats d) {
    const Mask better = above(size, largest);
    largest = larger(size, largest);
    q[0] = select(better, a, q[0]), q[1] = select(better, b, q[1]);
    q[2] = select(better, c, q[2]), q[3] = select(better, d, q[3]);
  };
  prefer(x4, wx, x4, xy, xz);
  prefer(y4, wy, xy, y4, yz);
  prefer(z4, wz, xz, yz, z4);
  const Floats norm = multiply_add(
      q[0], q[0], multiply_add(q[1], q[1], multiply_add(q[2], q[2], q[3] * q[3])));
  const Floats inverse = 1.f / square_root(norm);
  for (int k = 0; k < 4; k++) q[k] = q[k] * inverse;
}

// Orientation, two scales (mm) and area (mm^2) of the disc with half axes p and q (mm).
struct Disc {
  Floats quat[4], scales[2], area;
};
AVAT3R_INLINE Disc disc(const Vector& p, const Vector& q) {
  Disc r;
  const Vector normal = cross(p, q);
  r.area = square_root(dot(normal, normal));
  // Principal axes: p and q turned into each other by an angle t with tan 2t = 2 pq / (pp - qq).
  const Floats pp = dot(p, p), qq = dot(q, q), pq = dot(p, q);
  const Floats mean = 0.5f * (pp + qq), difference = 0.5f * (pp - qq);
  const Floats radius = square_root(multiply_add(difference, difference, pq * pq));
  const Floats cos_2t = difference / larger(radius, broadcast(kTiny));
  const Floats zero = broadcast(0.f);
  const Floats cos_t = square_root(larger(multiply_add(cos_2t, broadcast(0.5f), broadcast(0.5f)), zero));
  const Floats abs_sin_t =
      square_root(larger(negative_multiply_add(cos_2t, broadcast(0.5f), broadcast(0.5f)), zero));
  const Floats sin_t = select(at_least(pq, zero), abs_sin_t, zero - abs_sin_t);
  r.scales[0] = square_root(mean + radius);
  const Floats inverse = 1.f / larger(r.scales[0], broadcast(kTiny));
  r.scales[1] = r.area * inverse;  // not from mean - radius, which cancels in thin discs
  const Floats a = cos_t * inverse, b = sin_t * inverse;
  const Vector x = {p.x * a + q.x * b, p.y * a + q.y * b, p.z * a + q.z * b};
  const Vector z = scaled(normal, 1.f / larger(r.area, broadcast(kTiny)));
  quaternion(x, cross(z, x), z, r.quat);
  return r;
}

// Rows of `map` times the inputs.
AVAT3R_INLINE void multiply_map(const Avat3rBasis& basis, int64_t first, int count,
                                const float* inputs, float* coefficients) {
  const uint16_t* row = basis.map + first * basis.num_inputs;
  for (int i = 0; i < count; i++, row += basis.num_inputs) {
    Floats total = broadcast(0.f);
    for (int j = 0; j < basis.num_inputs; j += kLanes) {
      total = multiply_add(load_halves(row + j), load(inputs + j), total);
    }
    coefficients[i] = sum(total);
  }
}

void evaluate_block(const Avat3rBasis& basis, const Avat3rBasisBlock& block,
                    const float* aligned_inputs, const Avat3rBasisOutputs& outputs) {
  float coefficients[kNumBasisGroups * kMaxRank];
  const float* of_group[kNumBasisGroups];
  int total = 0;
  for (int g = 0; g < kNumBasisGroups; g++) {
    of_group[g] = coefficients + total;
    total += block.ranks[g];
  }
  multiply_map(basis, block.coefficient_begin, total, aligned_inputs, coefficients);

  const int* ranks = block.ranks;
  const uint16_t* stream = basis.stream + block.stream_begin;
  const float* positions = basis.positions + block.position_begin;
  for (int begin = 0; begin < block.count; begin += kLanes) {
    const int count = block.count - begin < kLanes ? block.count - begin : kLanes;
    const int64_t row = block.first + begin;
    if (ranks[kPosition]) {
      Floats moved[3] = {broadcast(0.f), broadcast(0.f), broadcast(0.f)};
      stream = add_components<3>(moved, stream, of_group[kPosition], ranks[kPosition]);
      for (int w = 0; w < 3; w++) {
        Floats resting;
        memcpy(&resting, positions + w * kLanes, sizeof(resting));
        moved[w] = multiply_add(moved[w], broadcast(kMetresPerMillimetre), resting);
      }
      write_rows<3>(moved, outputs.means + 3 * row, 3, count);
      positions += 3 * kLanes;
    }
    Floats share = broadcast(1.f);
    if (ranks[kHalfAxes]) {
      const Floats least = load_halves(stream), greatest = load_halves(stream + kLanes);
      stream += 2 * kLanes;
      Floats inverse_area = broadcast(0.f);
      if (block.fades) inverse_area = load_halves(stream), stream += kLanes;
      Floats axes[6];
      stream = sum_rows<6>(axes, stream, of_group[kHalfAxes], ranks[kHalfAxes]);
      Disc r = disc({axes[0], axes[1], axes[2]}, {axes[3], axes[4], axes[5]});
      write_rows<4>(r.quat, outputs.quats_wxyz + 4 * row, 4, count);
      for (Floats& scale : r.scales) {
        scale = smaller(larger(scale, least), greatest) * kMetresPerMillimetre;
      }
      write_rows<2>(r.scales, outputs.scales + 3 * row, 3, count);
      if (block.fades) {
        const Floats ratio = r.area * inverse_area;
        const Floats change = larger(ratio, 1.f / larger(ratio, broadcast(kTiny)));
        share = (basis.fade_to - change) * (1.f / (basis.fade_to - basis.fade_from));
        share = smaller(larger(share, broadcast(0.f)), broadcast(1.f));
      }
    }
    if (ranks[kThickness]) {
      Floats thickness;
      stream = sum_rows<1>(&thickness, stream, of_group[kThickness], ranks[kThickness]);
      thickness = larger(thickness, broadcast(0.f)) * kMetresPerMillimetre;
      write_rows<1>(&thickness, outputs.scales + 3 * row + 2, 3, count);
    }
    if (ranks[kColor]) {
      Floats color[3];
      stream = sum_rows<3>(color, stream, of_group[kColor], ranks[kColor]);
      write_rows<3>(color, outputs.colors + 3 * row, 3, count);
    }
    if (ranks[kOpacity] || block.fades) {
      Floats opacity;
      stream = sum_rows<1>(&opacity, stream, of_group[kOpacity], ranks[kOpacity]);
      opacity = smaller(larger(opacity, broadcast(0.f)), broadcast(1.f)) * share;
      write_rows<1>(&opacity, outputs.opacities + row, 1, count);
    }
  }
}

}  // namespace

extern const BasisKernels AVAT3R_BASIS_KERNELS;
const BasisKernels AVAT3R_BASIS_KERNELS = {AVAT3R_BASIS_KERNELS_NAME, evaluate_block};

}  // namespace avat3r
