// Derivative of the projection, one splat after the other. Part of splat_kernels.h.
#pragma once

// Add up the splat's rows over its tiles; false if no pixel took it.
static bool sum_pair_rows(const CameraLists& lists, int64_t index, float* sums) {
  const TileBox box = lists.boxes[index];
  if (!box.visible()) return false;
  const int num_pairs = box.num_tiles();
  const size_t first = lists.first_pair[index];
  bool used = false;
  for (int k = 0; k < kPairMoments + kMaxChannels; k++) sums[k] = 0.f;
  for (int i = 0; i < num_pairs; i++) {
    const float* row = lists.pair_rows + (first + i) * kPairRow;
    if (row[kPairUsed] == 0.f) continue;
    used = true;
    for (int k = 0; k < kPairMoments + kMaxChannels; k++) sums[k] += row[k];
  }
  return used;
}

static float dot(const float* a, const float* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Rotation matrix of a unit quaternion, row-major.
static void rotation_from_quaternion(const float* q, float* rotation) {
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  rotation[0] = 1 - 2 * (y * y + z * z), rotation[1] = 2 * (x * y - w * z);
  rotation[2] = 2 * (x * z + w * y), rotation[3] = 2 * (x * y + w * z);
  rotation[4] = 1 - 2 * (x * x + z * z), rotation[5] = 2 * (y * z - w * x);
  rotation[6] = 2 * (x * z - w * y), rotation[7] = 2 * (y * z + w * x);
  rotation[8] = 1 - 2 * (x * x + y * y);
}

// Add dL/dq for an unnormalised quaternion `q` = `unit` / inverse_norm, given dL/drotation `g`.
static void add_quaternion_gradient(const float* unit, float inverse_norm, const float* g,
                                    float* out) {
  const float w = unit[0], x = unit[1], y = unit[2], z = unit[3];
  const float of_unit[4] = {
      2 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1])),
      2 * (-2 * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5])),
      2 * (x * (g[1] + g[3]) - 2 * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6])),
      2 * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2 * z * (g[0] + g[4]) + w * (g[3] - g[1])),
  };
  // Lengthening the quaternion changes nothing: remove that component.
  const float along = of_unit[0] * w + of_unit[1] * x + of_unit[2] * y + of_unit[3] * z;
  for (int k = 0; k < 4; k++) out[k] += (of_unit[k] - along * unit[k]) * inverse_norm;
}

// Names: g_a is dL/da. See project_lanes for the forward formulas.
static void project_backward(const Avat3rSplatScene& scene, const CameraLists& lists, int64_t begin,
                             int64_t end, const Avat3rSplatGradients& gradients,
                             double* viewmat_gradient) {
  const CameraModel& camera = lists.camera;
  const float* r = camera.rotation;
  for (int64_t index = begin; index < end; index++) {
    float sums[kPairMoments + kMaxChannels];
    if (!sum_pair_rows(lists, index, sums)) continue;
    const Splat& splat = lists.splats[index];
    const size_t i = index;
    for (int k = 0; k < scene.num_colors; k++) {
      gradients.colors[i * scene.num_colors + k] += sums[kPairMoments + k];
    }
    gradients.opacities[i] += sums[0] / scene.opacities[i];

    // Inverse screen covariance [[c0, c1], [c1, c2]] from its factor, out of units of ln(2).
    const float c0 = 1.38629436112f * splat.p * splat.p, c1 = 1.38629436112f * splat.p * splat.q,
                c2 = 1.38629436112f * (splat.q * splat.q + splat.r * splat.r);
    const float g_u = c0 * sums[1] + c1 * sums[2], g_v = c1 * sums[1] + c2 * sums[2];
    const float g_c0 = -0.5f * sums[3], g_c1 = -0.5f * sums[4], g_c2 = -0.5f * sums[5];
    // Covariance: -C g_C C, all matrices symmetric, g_c1 being one of the two off-diagonal
    // elements.
    const float m00 = c0 * g_c0 + c1 * g_c1, m01 = c0 * g_c1 + c1 * g_c2;
    const float m10 = c1 * g_c0 + c2 * g_c1, m11 = c1 * g_c1 + c2 * g_c2;
    const float g_xx = -(m00 * c0 + m01 * c1), g_xy = -(m00 * c1 + m01 * c2),
                g_yy = -(m10 * c1 + m11 * c2);

    // The forward values again.
    const float* mean = scene.means + 3 * i;
    const float* scale = scene.scales + 3 * i;
    const float* quat = scene.quats_wxyz + 4 * i;
    float position[3];
    for (int k = 0; k < 3; k++) position[k] = dot(r + 3 * k, mean) + camera.translation[k];
    const float inverse_z = 1.f / position[2];
    const float xz = position[0] * inverse_z, yz = position[1] * inverse_z;
    const bool x_free = xz >= camera.x_min && xz <= camera.x_max;
    const bool y_free = yz >= camera.y_min && yz <= camera.y_max;
    const float xc = x_free ? xz : (xz < camera.x_min ? camera.x_min : camera.x_max);
    const float yc = y_free ? yz : (yz < camera.y_min ? camera.y_min : camera.y_max);
    const float ax = camera.fx * inverse_z, ay = camera.fy * inverse_z;
    const float inverse_norm = 1.f / __builtin_sqrtf(quat[0] * quat[0] + quat[1] * quat[1] +
                                                     quat[2] * quat[2] + quat[3] * quat[3]);
    float unit[4], rotation[9], m[9];
    for (int k = 0; k < 4; k++) unit[k] = quat[k] * inverse_norm;
    rotation_from_quaternion(unit, rotation);
    for (int k = 0; k < 9; k++) m[k] = rotation[k] * scale[k % 3];
    float ray0[3], ray1[3], j0[3], j1[3], p[3], q[3];  // ray: R0 - xc R2, R1 - yc R2
    for (int k = 0; k < 3; k++) {
      ray0[k] = r[k] - xc * r[6 + k], ray1[k] = r[3 + k] - yc * r[6 + k];
      j0[k] = ax * ray0[k], j1[k] = ay * ray1[k];
    }
    for (int k = 0; k < 3; k++) {
      p[k] = j0[0] * m[k] + j0[1] * m[3 + k] + j0[2] * m[6 + k];
      q[k] = j1[0] * m[k] + j1[1] * m[3 + k] + j1[2] * m[6 + k];
    }

    // Covariance -> p, q -> J and M.
    float g_p[3], g_q[3], g_j0[3], g_j1[3], g_m[9];
    for (int k = 0; k < 3; k++) {
      g_p[k] = 2 * (g_xx * p[k] + g_xy * q[k]);
      g_q[k] = 2 * (g_xy * p[k] + g_yy * q[k]);
    }
    for (int k = 0; k < 3; k++) {
      g_j0[k] = dot(m + 3 * k, g_p), g_j1[k] = dot(m + 3 * k, g_q);
      for (int l = 0; l < 3; l++) g_m[3 * k + l] = j0[k] * g_p[l] + j1[k] * g_q[l];
    }

    // J and the screen position -> position in the camera frame.
    const float g_xz = camera.fx * g_u - (x_free ? ax * dot(g_j0, r + 6) : 0.f);
    const float g_yz = camera.fy * g_v - (y_free ? ay * dot(g_j1, r + 6) : 0.f);
    const float g_inverse_z = camera.fx * dot(g_j0, ray0) + camera.fy * dot(g_j1, ray1) +
                              g_xz * position[0] + g_yz * position[1];
    const float g_depth = scene.with_depth ? sums[kPairMoments + scene.num_colors] : 0.f;
    const float g_position[3] = {g_xz * inverse_z, g_yz * inverse_z,
                                 g_depth - g_inverse_z * inverse_z * inverse_z};

    // Position and M -> mean, scale, quaternion.
    float g_rotation[9];
    for (int k = 0; k < 3; k++) {
      gradients.means[3 * i + k] +=
          r[k] * g_position[0] + r[3 + k] * g_position[1] + r[6 + k] * g_position[2];
      gradients.scales[3 * i + k] +=
          g_m[k] * rotation[k] + g_m[3 + k] * rotation[3 + k] + g_m[6 + k] * rotation[6 + k];
    }
    for (int k = 0; k < 9; k++) g_rotation[k] = g_m[k] * scale[k % 3];
    add_quaternion_gradient(unit, inverse_norm, g_rotation, gradients.quats_wxyz + 4 * i);

    if (viewmat_gradient) {
      // Doubles: one sum over all splats.
      for (int k = 0; k < 3; k++) {
        for (int l = 0; l < 3; l++) {
          viewmat_gradient[4 * k + l] += (double)g_position[k] * mean[l];
        }
        viewmat_gradient[4 * k + 3] += g_position[k];
      }
      for (int l = 0; l < 3; l++) {
        viewmat_gradient[l] += (double)ax * g_j0[l];
        viewmat_gradient[4 + l] += (double)ay * g_j1[l];
        viewmat_gradient[8 + l] -= (double)ax * xc * g_j0[l] + (double)ay * yc * g_j1[l];
      }
    }
  }
}
