"""CoDT [Liu & Wang 2022, ECCV]: clusters of a target's skeletons, whose classes differ from the labelled source's.

    L = λ_sup L_sup + λ_dec L_dec + λ_cont L_cont + λ_cls L_cls + λ_cot L_cot

    L_sup  = CE of the source's classes                                                    branch B0
    L_dec  = MSE of the joints, from their masked view: source + target                    B0
    L_cont = mean_i -log( φ(q_i, k_i) / Σ_j φ(q_i, k_j) ),   φ(q, k) = exp(cos(q, k) / ρ)  B1
    L_cls  = CE of the clusters' pseudo-labels y                            OCM: B0 + B1, each by its own
    L_cot  = mean_i -Σ_j G_ij log s_ij / Σ_j G_ij,   G_ij = [y_i = y_j]     CCM: B0 by B1's labels + B1 by B0's
    y      = argmax of min <S, -log P> + KL(S | uniform) / ξ                with equally many rows in each cluster

Branch B0 reads the layout that both domains share, B1 the target's own. Each branch has a student, which learns and is
tested, and a teacher, whose weights follow: θ' = α θ' + (1 - α) θ. A memory holds the teacher's latest feature of every
target row. k_j are these features, projected, and P are the predictions of the teacher's classifier for them. s_ij =
<p_i, p_j> of the student's predictions, with rows normalised to sum 1 over the batch.

The two stages are two runs: first `Params(lambda_cls=0, lambda_cot=0, strong=False)`, then `Params()` with `init_from`,
at a tenth of the learning rate. Rows of the ablation: BM has the first stage's losses in both; +OCM has lambda_cot=0.
Without clusters there is no target classifier, and `predict` returns features only. The number of clusters is the
target's true number of classes, as in the paper. `CODE` below has the values of the released code where they differ
from the supplement.

Implementation details
  1. Memory and labels are updated with the batch before its losses are computed. The positive k_i is then the teacher's
     feature of the other view in this batch, and the negatives are the features of all other rows. A run begins with
     features of unaugmented rows, in eval mode.
  2. Sinkhorn has the code's stopping rule. On 20,000 rows it stops after the limit of 100 iterations, before clusters
     are equal. It continues from the scales of the step before, so that iterations of successive steps add up; the code
     starts again in each step.
  3. Teachers begin as copies of the students in each run; the code initialises them at random. Their BN uses the
     batch's statistics, which are not averaged (code).
  4. At the start of a run, spherical k-means of the memory sets the weights of both classifiers of a branch, with
     biases 0 (the code's condition for this is never met). Its starts are the same in every run.
  5. ρ is 0.07, as in the code; the supplement's 7 would make all negatives equal.
  6. A student gets one view of a row, sheared, cropped and masked, for all losses. L_dec compares with the joints
     before the mask, averaged over as many stretches as the map has steps. Each branch draws its own views.
  7. Strong shear and crop are for the second stage, in all rows of the ablation. The mask is for both stages, because
     L_dec needs missing joints to fill in.
  8. Source and target pass the net separately: BN does not mix them.
  9. CCM-FP: G_ij = 1 where the features of the other teacher have the same 5 largest entries. CCM-PF: s_ij is the
     cosine of the student's features.
Shapes: N rows of the target, B of a batch, D features, K clusters; maps are (B, M bodies, D, T' steps).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn, stack
from torch.nn.functional import adaptive_avg_pool3d, cross_entropy, mse_loss, normalize

from heads import noise
from heads.augment import crop, mask_parts, shear
from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.cluster import spherical_kmeans
from heads.losses.contrastive import contrast
from heads.losses.pairs import pair_consistency, same_largest
from heads.losses.transport import cluster_scales, transport_plan
from heads.methods import Method
from heads.methods._copies import average
from heads.nets import Net, stgcn
from heads.nets.stgcn import draw_weights, pooled
from heads.params import within

VARIANTS = ("ccm", "fp", "pf")
WEAK, STRONG = (0.5, 6), (1.0, 3)  # β of shear, γ of crop
OTHER = {"B0": "B1", "B1": "B0"}


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of CoDT, with the supplement's values."""

    lambda_sup: float = within(1.0, 0)  #: λ_sup, weight of the source's classes [paper]
    lambda_dec: float = within(20.0, 0)  #: λ_dec, weight of the decoded joints [paper]
    lambda_cont: float = within(1.0, 0)  #: λ_cont, weight of the contrast with the memory [paper]
    lambda_cls: float = within(5.0, 0)  #: λ_cls, weight of online clustering (OCM); 0 in the first stage [paper]
    lambda_cot: float = within(10.0, 0)  #: λ_cot, weight of collaborative clustering (CCM); 0 in stage one [paper]
    variant: str = "ccm"  #: variant of CCM: ccm | fp (pairs by features) | pf (similarity of features) [paper]
    alpha: float = within(0.999, 0, 1)  #: α, share of a teacher's weights that stays in a step [paper]
    rho: float = within(0.07, 0, above=True)  #: ρ, temperature [code: the supplement has 7]
    xi: float = within(10.0, 0, above=True)  #: ξ, power of the predictions in the transport [paper]
    mask: float = within(0.3, 0, 1)  #: probability that a part of the body is masked in a frame; code: 0.1 [paper]
    strong: bool = True  #: students get strongly sheared and cropped rows; first stage, and code: False [paper]
    kmeans: bool = True  #: k-means initialises the target classifiers; code: False [paper]
    teacher_dropout: bool = False  #: teachers have dropout, as students do; code: True [ours]
    projection_dim: int = within(128, 1)  #: entries of q and k [code]


CODE = Params(mask=0.1, strong=False, kmeans=False, teacher_dropout=True)
"""The values of the released code where they differ from the supplement."""


class Codt(Method):
    """Two branches of students and teachers.

    Buffers of a branch: "memory:B0" (N, D), "labels:B0" (N,), and "scales:B0" (K,), the last scales of Sinkhorn.
    """

    needs = ("source", "target")
    tasks = ("clustering",)
    net: stgcn.Stgcn

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if not isinstance(net, stgcn.Stgcn):
            raise ValueError(
                "method codt needs the two branches of net stgcn, which this net does not have; use net stgcn"
            )
        p, D, N, K = params, net.dim, spec.rows["target"], spec.clusters
        if p.variant not in VARIANTS:
            raise ValueError(f"no method.variant {p.variant!r}; choose from {', '.join(VARIANTS)}")
        self.clusters = bool(p.lambda_cls or p.lambda_cot)
        if not (self.clusters or p.lambda_sup or p.lambda_dec or p.lambda_cont):
            raise ValueError("all λ of method codt are 0, so nothing is learnt; set one above 0")
        if self.clusters and not 1 < K <= N:
            raise ValueError(f"method codt cannot divide {N} target rows into {K} clusters; choose 2 to {N}")

        net.classifier.requires_grad_(p.lambda_sup > 0)  # parameters that no term reaches are not trained
        net.encoder["B0"].requires_grad_(bool(p.lambda_sup or p.lambda_dec) or self.clusters)
        net.encoder["B1"].requires_grad_(bool(p.lambda_cont) or self.clusters)
        if p.lambda_dec:
            C, _, V, _ = spec.shapes[net.feeds["B0"]]
            self.decoder = nn.Sequential(nn.Linear(D, D), nn.ReLU(), noise.Dropout(0.5), nn.Linear(D, C * V))
            self.decoder.apply(draw_weights)
        if p.lambda_cont:
            self.projection = nn.Linear(D, p.projection_dim)
            self.projection.apply(draw_weights)
        if self.clusters:
            self.target = nn.ModuleDict({branch: nn.Linear(D, K) for branch in net.feeds}).apply(draw_weights)
            self.target.requires_grad_(p.lambda_cls > 0 or p.variant != "pf")
        self.teacher = nn.ModuleDict(copy.deepcopy(self.students())).requires_grad_(False)
        for module in () if p.teacher_dropout else self.teacher.modules():
            if isinstance(module, noise.Dropout):
                module.p = 0.0

        self.remembered = [branch for branch in net.feeds if branch in self.teacher]
        for branch in self.remembered:
            self.register_buffer(f"memory:{branch}", torch.randn(N, D), persistent=False)
            if self.clusters:
                self.register_buffer(f"labels:{branch}", torch.arange(N) % K, persistent=False)
                self.register_buffer(f"scales:{branch}", torch.zeros(K, dtype=torch.float64), persistent=False)

    def students(self) -> dict[str, nn.Module]:
        """Return the modules with a teacher: the encoders of branches with a memory, and the modules that read it."""
        students: dict[str, nn.Module] = {}
        if self.params.lambda_cont:
            students["projection"] = self.projection
        if self.clusters:
            students |= {f"target_{branch}": classifier for branch, classifier in self.target.items()}
            students["B0"] = self.net.encoder["B0"]
        return students | ({"B1": self.net.encoder["B1"]} if students else {})

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Copy the students to the teachers, fill the memory, and find the first clusters, once."""
        if epoch > 0 or not self.remembered:
            return
        for name, student in self.students().items():
            self.teacher[name].load_state_dict(student.state_dict())
        for branch, f_ND in gather(sweep("target"), self.look).items():
            self.get_buffer(f"memory:{branch}").copy_(f_ND)
        if self.clusters:
            for branch in self.remembered:
                if self.params.kmeans:
                    self.draw_clusters(branch)
                self.assign(branch)

    def look(self, side: Side) -> dict[str, Tensor]:
        """Return the teacher's features of unaugmented rows."""
        feeds = self.net.feeds
        return {branch: pooled(self.teacher[branch](side.pool(feeds[branch]))) for branch in self.remembered}

    def draw_clusters(self, branch: str) -> None:
        """Set the classifiers of student and teacher to centroids of the memory."""
        centroids_KD = spherical_kmeans(self.get_buffer(f"memory:{branch}"), self.spec.clusters, seed=0)
        for classifier in (self.target[branch], self.teacher[f"target_{branch}"]):
            weight, bias = classifier.parameters()
            weight.copy_(centroids_KD)
            bias.zero_()

    def rounds(self, batch: Batch, progress: float) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield one round; before it the memory takes in the batch, after it the teachers follow."""
        self.remember(batch.target_side)
        yield "all", self(batch, progress)
        for name, student in self.students().items():
            average(self.teacher[name], student, self.params.alpha)

    @torch.no_grad()
    def remember(self, t: Side) -> None:
        """Store the teacher's features of weak views of these rows, and assign new labels to all rows."""
        for branch in self.remembered:
            x, _ = view(t.pool(self.net.feeds[branch]), WEAK)
            self.get_buffer(f"memory:{branch}")[t.index] = pooled(self.teacher[branch](x))
            if self.clusters:
                self.assign(branch)

    def assign(self, branch: str) -> None:
        """Assign pseudo-labels to the whole memory, by optimal transport."""
        log_p_NK = self.teacher[f"target_{branch}"](self.get_buffer(f"memory:{branch}")).log_softmax(1)
        scales_K = self.get_buffer(f"scales:{branch}")
        scales_K.copy_(cluster_scales(log_p_NK, self.params.xi, scales_K))
        self.get_buffer(f"labels:{branch}").copy_(transport_plan(log_p_NK, self.params.xi, scales_K).argmax(1))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the terms whose λ is not 0."""
        p, (s, t) = self.params, batch.both()
        terms, f = {}, {}
        if p.lambda_sup or p.lambda_dec:
            maps_s, joints_s = self.student_maps("B0", s)
        if p.lambda_dec or self.clusters:
            maps_t, joints_t = self.student_maps("B0", t)
            f["B0"] = pooled(maps_t)
        if p.lambda_cont or self.clusters:
            f["B1"] = pooled(self.student_maps("B1", t)[0])
        if p.lambda_sup:
            terms["L_sup"] = p.lambda_sup * self.net.loss({"B0": pooled(maps_s)}, s)["L_C"]
        if p.lambda_dec:
            terms["L_dec"] = p.lambda_dec * (self.decoded(maps_s, joints_s) + self.decoded(maps_t, joints_t))
        if p.lambda_cont:
            terms["L_cont"] = p.lambda_cont * self.contrasted(f["B1"], t)
        if self.clusters:
            z = {branch: self.target[branch](f[branch]) for branch in OTHER}
            y = {branch: self.get_buffer(f"labels:{branch}")[t.index] for branch in OTHER}
            if p.lambda_cls:
                terms["L_cls"] = p.lambda_cls * stack([cross_entropy(z[b], y[b]) for b in OTHER]).sum()
            if p.lambda_cot:
                each = [pair_consistency(self.similar(f[b], z[b]), self.same(OTHER[b], t)) for b in OTHER]
                terms["L_cot"] = p.lambda_cot * stack(each).sum()
        return terms

    def student_maps(self, branch: str, side: Side) -> tuple[Tensor, Tensor]:
        """Return the student's maps of a masked view, and the joints of that view before the mask."""
        strength = STRONG if self.params.strong else WEAK
        masked, joints = view(side.pool(self.net.feeds[branch]), strength, self.params.mask)
        return self.net.maps(branch, masked), joints

    def decoded(self, maps_BMDT: Tensor, joints_BCTVM: Tensor) -> Tensor:
        """Return L_dec of one side."""
        _, _, _, V, M = joints_BCTVM.shape
        target = adaptive_avg_pool3d(joints_BCTVM, (maps_BMDT.shape[3], V, M)).permute(0, 4, 2, 1, 3).flatten(3)
        return mse_loss(self.decoder(maps_BMDT.transpose(2, 3)), target)

    def contrasted(self, f_BD: Tensor, t: Side) -> Tensor:
        """Return L_cont: each row against the memory, in which its own entry is the positive."""
        with torch.no_grad():
            k_ND = self.teacher["projection"](self.get_buffer("memory:B1"))
        own_BN = t.index[:, None] == torch.arange(len(k_ND), device=t.index.device)
        return contrast(self.projection(f_BD), k_ND, own_BN, tau=self.params.rho)

    def similar(self, f_BD: Tensor, z_BK: Tensor) -> Tensor:
        """Return the students' similarities of rows -> (B, B) in [0, 1]."""
        v = normalize(f_BD) if self.params.variant == "pf" else z_BK.softmax(1)
        return v @ v.T

    def same(self, branch: str, t: Side) -> Tensor:
        """Return G (B, B), by the pseudo-labels or features of the branch's teacher."""
        if self.params.variant == "fp":
            f_BD = self.get_buffer(f"memory:{branch}")[t.index]
            return same_largest(f_BD, min(5, f_BD.shape[1]))
        y_B = self.get_buffer(f"labels:{branch}")[t.index]
        return y_B[:, None] == y_B

    def outputs(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """Return the features of each branch (B, D), and its cluster logits (B, K) if there are clusters."""
        outputs = self.net.outputs(f)
        if self.clusters:
            outputs |= {f"cluster_{branch}": self.target[branch](f_BD) for branch, f_BD in f.items()}
        return outputs


def view(x: Tensor, strength: tuple[float, int], mask: float = 0.0) -> tuple[Tensor, Tensor]:
    """Shear and crop skeletons; return them with and without the mask."""
    beta, gamma = strength
    joints = crop(shear(x, beta), gamma)
    return mask_parts(joints, mask), joints


METHOD = Codt
