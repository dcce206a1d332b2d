"""Counts of a graph whose sizes one can add up by hand."""

from __future__ import annotations

from pathlib import Path

from mindcv_poolformer.runtime.graph_dump import Map, read_dump

# As MindSpore 2.10 writes it: y = relu(norm(w16 x)), a loss of it, and back; an update on a branch.
DUMP = """\
# Total subgraphs: 2
subgraph @1_main() {
  %0(a) = Load(%para2_w, UMonad[U]) cnode_attrs: {checkpoint: Bool(1)}
      : (<Ref[Tensor[Float32]], (4, 8), ref_key=w, is_parameter>, <UMonad, NoShape>) -> (<Tensor[Float32], (4, 8)>)
  %1(b) = PrimFunc_Cast(%0, I64(42)) primitive_attrs: {x: [%9]} cnode_attrs: {}
      : (<Tensor[Float32], (4, 8)>, <Int64, NoShape>) -> (<Tensor[Float16], (4, 8)>)
  %2(c) = MatMul(%para1_x, %1) {instance name: matmul}
      : (<Tensor[Float16], (10, 4)>, <Tensor[Float16], (4, 8)>) -> (<Tensor[Float16], (10, 8)>)
  %3(d) = GroupNorm(%2)
      : (<Tensor[Float16], (10, 8)>) -> (<Tuple[Tensor[Float16]*2], TupleShape((10, 8), (10, 1))>)
  %4(e) = TupleGetItem(%3, I64(0))
      : (<Tuple[Tensor[Float16]*2], TupleShape((10, 8), (10, 1))>, <Int64, NoShape>) -> (<Tensor[Float16], (10, 8)>)
  %5(f) = Reshape(%4, (80))
      : (<Tensor[Float16], (10, 8)>, <Tuple[Int64], TupleShape(())>) -> (<Tensor[Float16], (80)>)
  %6(g) = LossGrad(%5, %para1_x)
      : (<Tensor[Float16], (80)>, <Tensor[Float16], (10, 4)>) -> (<Tensor[Float16], (80)>)
      # Fullname with scope: (Gradients/Default/network-WithLoss/Grad_Loss/LossGrad-op0)
  %7(h) = TupleGetItem(%3, I64(1))
      : (<Tuple[Tensor[Float16]*2], TupleShape((10, 8), (10, 1))>, <Int64, NoShape>) -> (<Tensor[Float16], (10, 1)>)
  %8(i) = GroupNormGrad(%6, %7, %1)
      : (<Tensor[Float16], (80)>, <Tensor[Float16], (10, 1)>, <Tensor[Float16], (4, 8)>) -> (<Tensor[Float16], (10, 8)>)
  Return(%8)
      : (<Tensor[Float16], (10, 8)>)
      # Fullname with scope: (Gradients/Default/Return-op0)
}
subgraph @2_update() {
  %9(j) = Assign(%para2_w, %para3_v)
      : (<Ref[Tensor[Float32]], (4, 8), ref_key=w>, <Tensor[Float32], (-1, 8)>) -> (<Tensor[Float32], (4, 8)>)
}
"""  # noqa: E501


def test_counts_are_those_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "21_validate_0001.ir"
    path.write_text(DUMP)
    dump = read_dump(path)
    assert [call.primitive for call in dump] == [
        "Cast", "MatMul", "GroupNorm", "LossGrad", "GroupNormGrad", "Assign",
    ]  # fmt: skip
    assert next(iter(dump)).inputs == (Map("Float32", (4, 8)),)
    maps = {call.primitive: call.bytes for call in dump}
    assert maps["MatMul"] == 2 * (40 + 32 + 80)
    assert maps["GroupNorm"] == 2 * (80 + 80 + 10)
    assert dump.dynamic == {"Assign"}
    # the norm's two items, and the weight's cast, which was made before; what follows the loss's
    # gradient goes backward, wherever it was written
    assert dump.kept_for_backward == 2 * (80 + 10 + 32)
