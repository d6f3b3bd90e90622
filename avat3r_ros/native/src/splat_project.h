// Projection of Gaussians to splats, and its derivative. Part of splat_kernels.h.
#pragma once

// Sixteen Gaussians, one a lane.
struct GaussianLanes {
  Floats mean[3], rotation_scale[9];  // R diag(s): the covariance is its product with its transpose
  Floats opacity, log2_opacity;
  Floats extent2;  // squared distance, in standard deviations, at which alpha falls to 1/255
  Mask finite;
};

// rows[k][lane] = values[lane * kWidth + k] for `count` lanes; the others repeat the last one.
template <int kWidth>
AVAT3R_INLINE void deinterleave(const float* values, int count, float (*rows)[kLanes]) {
  if (count < kLanes) {
    for (int lane = 0; lane < kLanes; lane++) {
      const int row = lane < count ? lane : count - 1;
      for (int k = 0; k < kWidth; k++) rows[k][lane] = values[row * kWidth + k];
    }
    return;
  }
#if defined(__SSE2__)
  for (int lane = 0; lane < kLanes; lane += 4, values += 4 * kWidth) {
    __m128 a = _mm_loadu_ps(values);
    if (kWidth == 3) {  // x0 y0 z0 x1 | y1 z1 x2 y2 | z2 x3 y3 z3
      const __m128 b = _mm_loadu_ps(values + 4), c = _mm_loadu_ps(values + 8);
      const __m128 xy23 = _mm_shuffle_ps(b, c, _MM_SHUFFLE(2, 1, 3, 2));
      const __m128 yz01 = _mm_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 2, 1));
      _mm_store_ps(&rows[0][lane], _mm_shuffle_ps(a, xy23, _MM_SHUFFLE(2, 0, 3, 0)));
      _mm_store_ps(&rows[1][lane], _mm_shuffle_ps(yz01, xy23, _MM_SHUFFLE(3, 1, 2, 0)));
      _mm_store_ps(&rows[2][lane], _mm_shuffle_ps(yz01, c, _MM_SHUFFLE(3, 0, 3, 1)));
    } else {
      static_assert(kWidth == 3 || kWidth == 4, "vectors or quaternions");
      __m128 b = _mm_loadu_ps(values + 4), c = _mm_loadu_ps(values + 8);
      __m128 d = kWidth == 4 ? _mm_loadu_ps(values + 12) : c;
      _MM_TRANSPOSE4_PS(a, b, c, d);
      _mm_store_ps(&rows[0][lane], a), _mm_store_ps(&rows[1][lane], b);
      _mm_store_ps(&rows[2][lane], c), _mm_store_ps(&rows[kWidth - 1][lane], d);
    }
  }
#else
  for (int lane = 0; lane < kLanes; lane++) {
    for (int k = 0; k < kWidth; k++) rows[k][lane] = values[lane * kWidth + k];
  }
#endif
}

// By the bits: compilers may take x * 0 for 0, and then no NaN is seen.
AVAT3R_INLINE bool is_finite(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7fffffff) <= 0x7f7fffff;
}
AVAT3R_INLINE Mask is_finite(Floats values) {
  return at_least(broadcast_int(0x7f7fffff), as_ints(values) & 0x7fffffff);
}

// Which of `count` Gaussians have finite colours.
static Mask finite_colors(const float* colors, int num_colors, int count) {
  int num_bad = 0;
  for (int i = 0; i < count * num_colors; i++) num_bad += !is_finite(colors[i]);
  alignas(64) float worst[kLanes] = {};
  for (int lane = 0; num_bad && lane < count; lane++) {
    for (int k = 0; k < num_colors; k++) {
      const float value = colors[lane * num_colors + k];
      if (!is_finite(value)) worst[lane] = value;
    }
  }
  return is_finite(load(worst));
}

// Read `count` Gaussians from row `begin`; lanes from `count` on repeat the last one.
static GaussianLanes load_gaussians(const Avat3rSplatScene& scene, int64_t begin, int count) {
  const int num_colors = scene.num_colors;
  alignas(64) float rows[11][kLanes];
  deinterleave<3>(scene.means + 3 * begin, count, rows);
  deinterleave<4>(scene.quats_wxyz + 4 * begin, count, rows + 3);
  deinterleave<3>(scene.scales + 3 * begin, count, rows + 7);
  for (int lane = 0; lane < kLanes; lane++) {
    rows[10][lane] = scene.opacities[begin + (lane < count ? lane : count - 1)];
  }
  GaussianLanes g;
  g.finite = finite_colors(scene.colors + num_colors * begin, num_colors, count);
  for (int k = 0; k < 11; k++) g.finite = g.finite & is_finite(load(rows[k]));
  for (int k = 0; k < 3; k++) g.mean[k] = load(rows[k]);
  const Floats w = load(rows[3]), x = load(rows[4]), y = load(rows[5]), z = load(rows[6]);
  const Floats s0 = load(rows[7]), s1 = load(rows[8]), s2 = load(rows[9]);
  // Rotation entries are quadratic in the quaternion: 2 / |q|^2 normalises without a square root.
  const Floats norm = 2.f / (w * w + x * x + y * y + z * z);
  const Floats xn = x * norm, yn = y * norm, zn = z * norm;
  const Floats xx = x * xn, yy = y * yn, zz = z * zn, xy = x * yn, xz = x * zn, yz = y * zn;
  const Floats wx = w * xn, wy = w * yn, wz = w * zn;
  Floats* m = g.rotation_scale;
  m[0] = (1.f - (yy + zz)) * s0, m[1] = (xy - wz) * s1, m[2] = (xz + wy) * s2;
  m[3] = (xy + wz) * s0, m[4] = (1.f - (xx + zz)) * s1, m[5] = (yz - wx) * s2;
  m[6] = (xz - wy) * s0, m[7] = (yz + wx) * s1, m[8] = (1.f - (xx + yy)) * s2;
  g.opacity = load(rows[10]);
  g.log2_opacity = log2(larger(g.opacity, broadcast(1e-10f)));
  // Slightly padded: the blender tests alpha itself.
  g.extent2 = smaller((g.log2_opacity - kLog2MinAlpha) * 1.3862943611f,  // 2 ln(2)
                      broadcast(kMaxExtent * kMaxExtent)) *
              1.0005f;
  return g;
}

// fields[lane][0..3] = rows[0..3][lane].
template <int kWidth>
AVAT3R_INLINE void interleave_4(const float (*rows)[kLanes], float (*fields)[kWidth]) {
#if defined(__SSE2__)
  for (int lane = 0; lane < kLanes; lane += 4) {
    __m128 a = _mm_load_ps(&rows[0][lane]), b = _mm_load_ps(&rows[1][lane]);
    __m128 c = _mm_load_ps(&rows[2][lane]), d = _mm_load_ps(&rows[3][lane]);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_store_ps(fields[lane], a), _mm_store_ps(fields[lane + 1], b);
    _mm_store_ps(fields[lane + 2], c), _mm_store_ps(fields[lane + 3], d);
  }
#else
  for (int lane = 0; lane < kLanes; lane++) {
    for (int k = 0; k < 4; k++) fields[lane][k] = rows[k][lane];
  }
#endif
}

// Project 16 Gaussians; returns how many of them are visible.
static int project_lanes(const Avat3rSplatScene& scene, const GaussianLanes& g, int64_t begin,
                          int count, const CameraLists& lists, uint32_t* tile_counts) {
  const CameraModel& camera = lists.camera;
  const float* r = camera.rotation;
  const Floats x = r[0] * g.mean[0] + r[1] * g.mean[1] + r[2] * g.mean[2] + camera.translation[0];
  const Floats y = r[3] * g.mean[0] + r[4] * g.mean[1] + r[5] * g.mean[2] + camera.translation[1];
  const Floats z = r[6] * g.mean[0] + r[7] * g.mean[1] + r[8] * g.mean[2] + camera.translation[2];
  const Floats inverse_z = 1.f / z;
  const Floats xz = x * inverse_z, yz = y * inverse_z;
  const Floats u = camera.fx * xz + broadcast(camera.cx), v = camera.fy * yz + broadcast(camera.cy);
  const Floats xc = smaller(larger(xz, broadcast(camera.x_min)), broadcast(camera.x_max));
  const Floats yc = smaller(larger(yz, broadcast(camera.y_min)), broadcast(camera.y_max));
  // Rows of J R, with J the derivative of the projection: fx/z (R0 - xc R2) and fy/z (R1 - yc R2).
  const Floats ax = camera.fx * inverse_z, ay = camera.fy * inverse_z;
  Floats j0[3], j1[3], p[3], q[3];
  for (int k = 0; k < 3; k++) {
    j0[k] = ax * (r[k] - xc * r[6 + k]);
    j1[k] = ay * (r[3 + k] - yc * r[6 + k]);
  }
  const Floats* m = g.rotation_scale;
  for (int k = 0; k < 3; k++) {
    p[k] = j0[0] * m[k] + j0[1] * m[3 + k] + j0[2] * m[6 + k];
    q[k] = j1[0] * m[k] + j1[1] * m[3 + k] + j1[2] * m[6 + k];
  }
  // Screen covariance [[xx, xy], [xy, yy]] = [p; q] [p; q]^T + blur.
  const Floats xx = p[0] * p[0] + p[1] * p[1] + p[2] * p[2] + scene.eps2d;
  const Floats xy = p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
  const Floats yy = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + scene.eps2d;
  const Floats det = xx * yy - xy * xy;
  const Floats radius_x = square_root(larger(g.extent2 * xx, broadcast(0.f)));
  const Floats radius_y = square_root(larger(g.extent2 * yy, broadcast(0.f)));
  // Indices of the pixels whose centres lie inside the box; a NaN anywhere fails one of the tests.
  const Floats zero = broadcast(0.f);
  const Floats last_x = broadcast(scene.width - 1.f), last_y = broadcast(scene.height - 1.f);
  const Floats left = u - radius_x - 0.5f, right = u + radius_x - 0.5f;
  const Floats top = v - radius_y - 0.5f, bottom = v + radius_y - 0.5f;
  Mask keep = g.finite & at_least(z, broadcast(scene.near_plane)) &
              at_most(z, broadcast(scene.far_plane)) & above(det, zero) &
              at_most(det, broadcast(3e38f)) & at_least(g.opacity, broadcast(kMinAlpha)) &
              at_least(right, zero) & at_least(bottom, zero) & at_most(left, last_x) &
              at_most(top, last_y);
  const Ints x0 = to_ints(smaller(larger(left, zero), last_x) + 0.99999f);
  const Ints y0 = to_ints(smaller(larger(top, zero), last_y) + 0.99999f);
  const Ints x1 = to_ints(smaller(larger(right, zero), last_x));
  const Ints y1 = to_ints(smaller(larger(bottom, zero), last_y));
  keep = keep & at_least(x1, x0) & at_least(y1, y0);
  // sigma = (yy dx^2 - 2 xy dx dy + xx dy^2) / (2 det) = (p dx + q dy)^2 + (r dy)^2, here in units
  // of ln(2), which turn exp(-sigma) into a power of two.
  const Floats inverse_yy = 1.f / yy;
  const Floats p_factor = square_root(0.72134752044f * yy / det);
  alignas(64) float rows[8][kLanes];
  store(rows[0], u), store(rows[1], v);
  store(rows[2], p_factor), store(rows[3], broadcast(0.f) - p_factor * xy * inverse_yy);
  store(rows[4], square_root(0.72134752044f * inverse_yy));
  store(rows[5], g.log2_opacity), store(rows[6], radius_x), store(rows[7], radius_y);
  store(lists.depths + begin, z);
  float(*fields)[8] = (float(*)[8])(lists.splats + begin);
  interleave_4<8>(rows, fields);
  interleave_4<8>(rows + 4, (float(*)[8])((float*)fields + 4));

  alignas(64) int32_t kept[kLanes], low[kLanes], high[kLanes];  // corners of the tile boxes
  store(kept, keep);
  constexpr int kShift = 4;
  static_assert(1 << kShift == kTileSize, "pixels to tiles");
  const Ints tile_x0 = shift_right(x0, kShift), tile_y0 = shift_right(y0, kShift);
  const Ints tile_x1 = shift_right(x1, kShift), tile_y1 = shift_right(y1, kShift);
  store(low, select(keep, tile_x0 | shift_left(tile_y0, 16), broadcast_int(1)));
  store(high, select(keep, tile_x1 | shift_left(tile_y1, 16), broadcast_int(0)));
  int visible = 0;
  const uint32_t pitch = (uint32_t)(scene.width + kTileSize - 1) / kTileSize + 1;
  for (int lane = 0; lane < count; lane++) {
    TileBox& box = lists.boxes[begin + lane];
    memcpy(&box.x0, &low[lane], 4);
    memcpy(&box.x1, &high[lane], 4);
    if (!kept[lane]) continue;
    visible++;
    // Add one to every tile of the box in four steps: corners of a difference array, integrated
    // when all Gaussians are through.
    uint32_t* top = tile_counts + box.y0 * pitch;
    uint32_t* bottom = tile_counts + (box.y1 + 1u) * pitch;
    top[box.x0]++, top[box.x1 + 1]--;
    bottom[box.x0]--, bottom[box.x1 + 1]++;
  }
  return visible;
}

static ProjectCounts project(const Avat3rSplatScene& scene, const CameraLists* lists, int64_t begin,
                             int64_t end, uint32_t* const* tile_counts) {
  ProjectCounts counts = {};
  for (int64_t i = begin; i < end; i += kLanes) {
    const int count = (int)(end - i < kLanes ? end - i : kLanes);
    const GaussianLanes lanes = load_gaussians(scene, i, count);
    alignas(64) int32_t finite[kLanes];
    store(finite, lanes.finite);
    for (int lane = 0; lane < count; lane++) counts.invalid += finite[lane] == 0;
    for (int c = 0; c < scene.num_cameras; c++) {
      counts.visible += project_lanes(scene, lanes, i, count, lists[c], tile_counts[c]);
    }
  }
  return counts;
}
