"""How far a solution of the template fit is off what the photos show, and the derivatives of that.

Everything enters the surface points linearly or through one projection (fit_terms.py):

    landmarks   pixel - detected, and the same of the upper less that of the lower lids
    outlines    normal · (pixel - target)                     (outline.py)
    matches     W (pixels of both photos - matched pixels)    (matches.py)

W whitens the four pixel errors of a match: its surface point may lie off the fitted head by
`SHAPE_SIGMA_M`, which moves it in both photos alike; and what an expression moves may be elsewhere
in each photo.
"""

from dataclasses import replace

import cv2
import numpy as np

from avat3r_ros.capture.fit_terms import (
    FOCAL_GUESS,
    GAPS,
    INSIDE_WEIGHT,
    LANDMARK_SIGMA_M,
    LANDMARK_SIGMA_PX,
    MATCH_SIGMA_M,
    MIN_MATCHES,
    MOVED_SHARE,
    NEAREST_M,
    OPENING_SIGMA_M,
    OPENING_SIGMA_PX,
    OUTLINE_SIGMA_M,
    ROBUST_SIGMAS,
    SHAPE_SIGMA_M,
    USUAL_M,
    FitState,
    Projected,
    SurfacePoints,
)
from avat3r_ros.capture.matches import Matches
from avat3r_ros.capture.outline import Outline
from avat3r_ros.geometry import intrinsics_matrix
from avat3r_ros.rig import NUM_LANDMARKS, HeadTemplate, LandmarkBias

MIN_FACING = 0.15
"""Least weight of a landmark that is turned away from its camera."""

OPENINGS = np.zeros((len(GAPS), NUM_LANDMARKS))
"""(3, 478): from what is known of the landmarks to the same of the gaps: above less below."""
for _gap, (_above, _below) in enumerate(GAPS):
    OPENINGS[_gap, list(_above)] = 1 / len(_above)
    OPENINGS[_gap, list(_below)] = -1 / len(_below)


class ReprojectionErrors:
    """What V photos by G cameras show, and how far a solution is off it.

    Args:
        template: The head model, with measured landmarks.
        detected_px: (V, 478, 2) landmarks.
        centers_px: (V, 2) principal points.
        tracker_codes: (V, 52) scores.
        camera_of: Index of each photo's camera.
        focals_px: Focal length of each camera, None where unknown.
        image_sizes_px: Longer image side of each camera.
        identity: Fixed identity, or None to find it.

    Raises:
        ValueError: The template has no landmarks, the identity has another length, or no pose in
            front of a camera explains a photo's landmarks.
    """

    def __init__(
        self,
        template: HeadTemplate,
        *,
        detected_px: np.ndarray,
        centers_px: np.ndarray,
        tracker_codes: np.ndarray,
        camera_of: list[int],
        focals_px: list[float | None],
        image_sizes_px: list[int],
        identity: np.ndarray | None,
    ) -> None:
        self._bases = tuple(
            values.double().numpy()
            for values in (template.neutral, template.identity_basis, template.expression_basis)
        )
        self._triangles = template.triangles.numpy()
        self._landmarks = self._points_on(
            template.landmark_triangles.numpy(), template.landmark_barycentrics.double().numpy()
        )
        corners = self._triangles[template.landmark_triangles.numpy()]
        self.normals = template.vertex_normals(template.neutral).double().numpy()[corners].mean(1)
        self._outlines: list[tuple[Outline, SurfacePoints]] = []
        self._matches: list[tuple[Matches, SurfacePoints, np.ndarray]] = []
        landmark_weights = template.landmark_weights.double().numpy()
        if not landmark_weights.any():
            raise ValueError("expected a template with measured landmarks, got weights of 0")
        # Change of the face's size per identity coefficient, relative. Weights: were the face's rim
        # to count like its middle, wide heads would shrink the middle to keep the size.
        middle = np.average(self._landmarks.mean, axis=0, weights=landmark_weights)
        weighted = landmark_weights[:, None] * (self._landmarks.mean - middle)
        self._size = (self._landmarks.identity_basis * weighted).sum((1, 2))
        self._size /= (weighted * (self._landmarks.mean - middle)).sum()
        self.fixed_identity = identity is not None
        if identity is not None and identity.shape != (template.num_identity,):
            raise ValueError(
                f"expected an identity of {template.num_identity} values, got {identity.shape}"
            )
        self.detected_px = self._as_detected_px = detected_px
        self.centers_px = centers_px
        self.tracker_codes = tracker_codes.astype(np.float64)
        self.camera_of = camera_of
        self.focal_known = np.array([focal is not None for focal in focals_px])
        self.log_focal_guess = np.log(
            [
                focal or FOCAL_GUESS * size
                for focal, size in zip(focals_px, image_sizes_px, strict=True)
            ]
        )
        self._start(identity)
        if self._lengthen_too_near():
            self._start(identity)
        focals = np.exp(self.log_focal_guess)[camera_of]
        self._pixels_per_metre = focals / self.start.translations[:, 2]
        self._set_sigmas(landmark_weights)

    def _lengthen_too_near(self) -> bool:
        """Guess longer lenses where faces would be too near; whether there are any such."""
        near = np.array(
            [
                np.median(self.start.translations[np.equal(self.camera_of, camera), 2])
                for camera in range(len(self.focal_known))
            ]
        )
        too_near = ~self.focal_known & (near < NEAREST_M)
        self.log_focal_guess[too_near] += np.log(USUAL_M / near[too_near])
        return bool(too_near.any())

    def _start(self, identity: np.ndarray | None) -> None:
        """Pose of each photo for the known or mean head in the tracker's expression (PnP)."""
        identity = np.zeros(len(self._bases[1])) if identity is None else identity
        count = len(self.detected_px)
        self.start = FitState(
            identity.astype(np.float64),
            self.tracker_codes.copy(),
            np.zeros((count, 3, 3)),
            np.zeros((count, 3)),
            self.log_focal_guess.copy(),
        )
        face = slice(0, 468)
        for view in range(count):
            points = self._landmarks.in_head(self.start, view)
            focal = np.exp(self.log_focal_guess[self.camera_of[view]])
            found, rotation, translation = cv2.solvePnP(
                points[face],
                self.detected_px[view, face],
                intrinsics_matrix(focal, *self.centers_px[view]),
                None,
                flags=cv2.SOLVEPNP_SQPNP,
            )
            if not found or not translation[2, 0] > 0.03:
                raise ValueError(f"observation {view}: no head pose explains the landmarks")
            self.start.rotations[view] = cv2.Rodrigues(rotation)[0]
            self.start.translations[view] = translation[:, 0]
            if self.start.rotations[view][:, 2] @ self.start.translations[view] > 0:
                raise ValueError(
                    f"observation {view}: the landmarks are those of a face seen from behind; "
                    "were their x coordinates mirrored?"
                )

    def _set_sigmas(self, landmark_weights: np.ndarray) -> None:
        """Expected pixel error of each landmark: larger where it is badly found or turned away."""
        self.sigmas = np.empty(self.detected_px.shape[:2])
        self._opening_sigmas = np.empty((len(self.detected_px), len(GAPS)))
        for view in range(len(self.detected_px)):
            rotation, translation = self.start.rotations[view], self.start.translations[view]
            points = self._landmarks.in_head(self.start, view) @ rotation.T + translation
            to_camera = -points / np.linalg.norm(points, axis=1, keepdims=True)
            facing = ((self.normals @ rotation.T) * to_camera).sum(1)
            shown = np.clip(2 * facing + MIN_FACING, MIN_FACING, 1)
            weights = landmark_weights * shown
            pixels_per_metre = self._pixels_per_metre[view]
            self.sigmas[view] = np.hypot(LANDMARK_SIGMA_M * pixels_per_metre, LANDMARK_SIGMA_PX)
            self.sigmas[view] /= np.sqrt(weights)
            sigma = np.hypot(OPENING_SIGMA_M * pixels_per_metre, OPENING_SIGMA_PX)
            self._opening_sigmas[view] = sigma / np.sqrt(abs(OPENINGS) @ shown / 2)

    def _points_on(self, triangles: np.ndarray, weights: np.ndarray) -> SurfacePoints:
        corners = self._triangles[triangles]
        return SurfacePoints(
            *(np.einsum("nk,...nkc->...nc", weights, base[..., corners, :]) for base in self._bases)
        )

    def correct_landmarks(self, bias: LandmarkBias, state: FitState) -> None:
        """Take the tracker's errors at the poses of a solution off the landmarks.

        Args:
            bias: The errors, by direction of the camera.
            state: The solution, roughly right.
        """
        corrected = []
        for view, detected in enumerate(self._as_detected_px):
            rotation, translation = state.rotations[view], state.translations[view]
            shifts = bias.shifts(rotation, translation) @ rotation[:2].T
            focal = np.exp(state.log_focals[self.camera_of[view]])
            corrected.append(detected - shifts * focal / translation[2])
        self.detected_px = np.stack(corrected)

    def use_outlines(self, outlines: list[Outline]) -> None:
        """Let the next `solve` also bring the outline of each photo to its matte's edge."""
        self._outlines = [(o, self._points_on(o.triangles, o.barycentrics)) for o in outlines]

    def use_matches(self, matches: list[Matches], state: FitState) -> None:
        """Let the next `solve` also bring matched points of two photos together.

        Args:
            matches: Of pairs of photos.
            state: The fit they were found with; errors are weighed as there.
        """
        self._matches = []
        for match in (m for m in matches if len(m.triangles) >= MIN_MATCHES):
            surface = self._points_on(match.triangles, match.barycentrics)
            slopes, variances = [], []
            for view in (match.first, match.second):
                slopes.append(self._project(surface, state, view).slope() @ state.rotations[view])
                moved = np.tensordot(state.codes[view], surface.expression_basis, 1)
                sigmas = np.hypot(MATCH_SIGMA_M, MOVED_SHARE * np.linalg.norm(moved, axis=1))
                sigmas *= np.exp(state.log_focals[self.camera_of[view]])
                variances += 2 * [(sigmas / state.translations[view, 2]) ** 2]
            slope = np.concatenate(slopes, 1)
            covariance = SHAPE_SIGMA_M**2 * slope @ slope.transpose(0, 2, 1)
            covariance[:, range(4), range(4)] += np.stack(variances, 1)
            self._matches.append((match, surface, np.linalg.inv(np.linalg.cholesky(covariance))))

    def moved(self, state: FitState, log_focals: np.ndarray) -> FitState:
        """A solution with other focal lengths, and heads at the distances that keep their size."""
        factor = np.exp(log_focals - state.log_focals)[self.camera_of, None]
        translations = state.translations * np.concatenate(
            [np.ones((len(factor), 2)), factor], axis=1
        )
        return replace(state, translations=translations, log_focals=log_focals.copy())

    def log_size(self, state: FitState) -> float:
        """Size of a solution's face, as a logarithm relative to the mean head's."""
        return float(self._size @ state.identity)

    def _project(self, surface: SurfacePoints, state: FitState, view: int) -> Projected:
        """Surface points of a solution in one photo."""
        if (surface, view) not in state.projected:
            points = surface.in_head(state, view) @ state.rotations[view].T
            points += state.translations[view]
            focal = float(np.exp(state.log_focals[self.camera_of[view]]))
            pixels = focal * points[:, :2] / points[:, 2:]
            state.projected[surface, view] = Projected(points, pixels, focal)
        return state.projected[surface, view]

    def _jacobian(
        self, surface: SurfacePoints, state: FitState, view: int, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Derivative of pixels by identity, focals, turn, shift, code of the view, float32.

        Args:
            surface: The n points.
            state: Where.
            view: The photo.
            weights: (n, m, 2), of the derivatives of products with these; (n, 2, k) if None.
        """
        projected = self._project(surface, state, view)
        to_pixel, pixels = projected.slope(), projected.pixels[..., None]
        if weights is not None:
            to_pixel, pixels = weights @ to_pixel, weights @ pixels
        from_head = (to_pixel @ state.rotations[view]).astype(np.float32)
        turned = projected.points - state.translations[view]
        by_shape = from_head @ surface.slopes
        num_identity, num_groups = len(state.identity), len(state.log_focals)
        by_focal = np.zeros((*to_pixel.shape[:2], num_groups), np.float32)
        by_focal[:, :, self.camera_of[view]] = pixels[..., 0]
        # d(exp(w) p)/dw = -[p]x, so row a of to_pixel becomes p x a.
        (px, py, pz), (ax, ay, az) = turned.T[..., None], np.moveaxis(to_pixel, 2, 0)
        by_turn = np.stack([py * az - pz * ay, pz * ax - px * az, px * ay - py * ax], -1)
        return np.concatenate(
            [
                by_shape[..., :num_identity],
                by_focal,
                by_turn.astype(np.float32),
                to_pixel.astype(np.float32),
                by_shape[..., num_identity:],
            ],
            axis=2,
        )

    def _errors(self, state: FitState, view: int) -> np.ndarray:
        """Offsets of the projected from the detected landmarks, (478, 2) pixels."""
        pixels = self._project(self._landmarks, state, view).pixels
        return pixels + self.centers_px[view] - self.detected_px[view]

    def _outline_errors(self, state: FitState, view: int) -> tuple[np.ndarray, np.ndarray]:
        """How far the outline sticks out of the matte, pixels, and the weight of each point."""
        outline, surface = self._outlines[view]
        pixels = self._project(surface, state, view).pixels + self.centers_px[view]
        errors = ((pixels - outline.target_px) * outline.normal).sum(1)
        inside = np.where(outline.one_sided, 0.0, INSIDE_WEIGHT)
        # The first pose sets the scale: with the current one, a far head would be a cheap head.
        sigma = np.hypot(OUTLINE_SIGMA_M * self._pixels_per_metre[view], 1.0)
        return errors, np.where(errors > 0, 1.0, inside) / sigma**2

    def _match_errors(self, state: FitState, index: int) -> np.ndarray:
        """Whitened offsets of one pair's matches in both photos, (n, 4)."""
        match, surface, white = self._matches[index]
        errors = [
            self._project(surface, state, view).pixels + self.centers_px[view] - pixels
            for view, pixels in ((match.first, match.first_px), (match.second, match.second_px))
        ]
        return np.einsum("nij,nj->ni", white, np.concatenate(errors, 1))

    def _match_rows(self, state: FitState, index: int, shared: int) -> np.ndarray:
        """Derivative of `_match_errors` by the shared unknowns and those of both photos."""
        match, surface, white = self._matches[index]
        first, second = (
            self._jacobian(surface, state, view, white[:, :, columns])
            for view, columns in ((match.first, slice(0, 2)), (match.second, slice(2, 4)))
        )
        both = first[..., :shared] + second[..., :shared]
        rows = np.concatenate([both, first[..., shared:], second[..., shared:]], 2)
        return rows.reshape(4 * len(white), -1)

    def num_matches(self, state: FitState) -> np.ndarray:
        """Matches of each photo with others that the solution explains, (V,)."""
        count = np.zeros(len(self.detected_px), int)
        for index, (match, _, _) in enumerate(self._matches):
            squared = (self._match_errors(state, index) ** 2).sum(1)
            count[[match.first, match.second]] += int((squared < ROBUST_SIGMAS**2).sum())
        return count

    def residual_px(self, state: FitState) -> np.ndarray:
        """Weighted RMS distance of the landmarks in each photo, (V,) pixels."""
        residuals = []
        for view, sigmas in enumerate(self.sigmas):
            weights = sigmas**-2
            squared = (self._errors(state, view) ** 2).sum(1)
            residuals.append(np.sqrt((weights * squared).sum() / weights.sum()))
        return np.array(residuals)
