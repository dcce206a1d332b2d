PYTHON ?= python3
BIN := .venv/bin
RUN := runs/digits
SCENES := runs/digit_scenes
SEGMENTER := configs/semantic_fpn_poolformer_s12_digits.yaml
BOXES := runs/digit_objects
MASKS := runs/digit_masks

.PHONY: demo demo-segmentation demo-detection serve test test-all test-layout test-rare test-hosts test-with test-page lint bench

demo: .venv/installed
	$(BIN)/python train.py
	$(BIN)/python validate.py --val_amp_level O3 --compare_amp_level O0 --result_file $(RUN)/validation.json
	$(BIN)/python export.py --overwrite
	$(BIN)/python predict.py data/digits/val/2/0022.png --json > $(RUN)/prediction.json
	@echo
	@$(BIN)/python -m mindcv_poolformer.summary $(RUN)

# Starts from the digits classifier, which is trained first unless it is complete.
demo-segmentation: .venv/installed
	$(BIN)/python train.py
	$(BIN)/python train.py --config $(SEGMENTER) --ckpt_path $(RUN)/best.ckpt
	$(BIN)/python validate.py --config $(SEGMENTER) --val_amp_level O3 --compare_amp_level O0 --result_file $(SCENES)/validation.json
	$(BIN)/python export.py --config $(SEGMENTER) --overwrite
	$(BIN)/python predict.py data/digit_scenes/images/val/0000.png --bundle $(SCENES)/bundle --output_dir $(SCENES)/predictions --json > $(SCENES)/prediction.json
	@echo
	@$(BIN)/python -m mindcv_poolformer.summary $(SCENES)

# Boxes by RetinaNet, then boxes and masks by Mask R-CNN, both from the digits classifier.
demo-detection: .venv/installed
	$(BIN)/python train.py
	$(BIN)/python train.py --config configs/retinanet_poolformer_s12_digits.yaml --ckpt_path $(RUN)/best.ckpt
	$(BIN)/python validate.py --config configs/retinanet_poolformer_s12_digits.yaml --val_amp_level O3 --result_file $(BOXES)/validation.json --report $(BOXES)/report --overwrite
	$(BIN)/python export.py --config configs/retinanet_poolformer_s12_digits.yaml --overwrite
	$(BIN)/python predict.py data/digit_objects/val/0000.png --bundle $(BOXES)/bundle --output_dir $(BOXES)/predictions --json > $(BOXES)/prediction.json
	$(BIN)/python train.py --config configs/mask_rcnn_poolformer_s12_digits.yaml --ckpt_path $(RUN)/best.ckpt
	$(BIN)/python validate.py --config configs/mask_rcnn_poolformer_s12_digits.yaml --val_amp_level O3 --result_file $(MASKS)/validation.json --report $(MASKS)/report --overwrite
	$(BIN)/python export.py --config configs/mask_rcnn_poolformer_s12_digits.yaml --overwrite
	$(BIN)/python predict.py data/digit_objects/val/0000.png --bundle $(MASKS)/bundle --output_dir $(MASKS)/predictions --json > $(MASKS)/prediction.json
	@echo
	@$(BIN)/python -m mindcv_poolformer.summary $(BOXES)
	@$(BIN)/python -m mindcv_poolformer.summary $(MASKS)

# The inference server with the demo's bundle, on this machine alone.
serve: .venv/installed-serving
	$(BIN)/python -m mindcv_poolformer.serving $(RUN)/bundle

# Each worker reads all tests before its first, which takes half as long again without bytecode.
test test-all test-layout: export PYTHONDONTWRITEBYTECODE :=

# Three workers, for two cores: a worker often waits for the processes that its tests start.
test: .venv/installed-test
	$(BIN)/python -m pytest -m "not (long or rare or hosts)" -n 3 --dist loadfile

# In one run, so that a file's long and short tests share what they stand on. The files keep their
# order: by the number of their tests the kill storm, minutes of one test, would run last and alone.
test-all: lint $(addprefix .venv/installed-,test parity serving)
	$(BIN)/python -m pytest -m "not (rare or hosts)" -n 2 --dist loadfile --no-loadscope-reorder

# The layout that Ascend has, on the CPU: MindSpore's own operators, on maps (N, C, H, W). For
# convolutions with AVX-512 oneDNN has no kernel but its slow reference.
test-layout: .venv/installed-test
	ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest --layout NCHW -m layout -n 2 --dist loadfile

# What CI has no time for: the logits of every variant, whole networks as graphs, the notebook's
# outputs, and that the benchmark's contenders agree.
test-rare: $(addprefix .venv/installed-,test parity serving)
	$(BIN)/python -m pytest -m rare -n 2

# Two hosts out of one, and a cable that is cut: as root on Linux, with iproute2.
test-hosts: .venv/installed-test
	$(BIN)/python -m pytest -m hosts

# The fast tests of what the NPU needs on another MindSpore: make test-with MINDSPORE=2.7.0
test-with: .venv-$(MINDSPORE)/installed
	.venv-$(MINDSPORE)/bin/python -m pytest -m "not (long or rare or hosts)" -n 2 --dist loadfile $(addprefix tests/,ascend config models training export)

# The demo page, in Debian's Chromium. Gradio and MLServer cannot share an environment.
test-page: .venv-page/installed
	PAGE=required .venv-page/bin/python -m pytest tests/page

# Half an hour; make bench BENCH=--quick takes two to three minutes.
# Figures are of this machine's CPU.
bench: .venv/installed-parity
	$(BIN)/python -m benchmarks.bench $(BENCH)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 12) and f"Python {v[0]}.{v[1]}: expected 3.10 to 3.12, name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# The extras of pyproject.toml.
.venv/installed-%: pyproject.toml .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	touch $@

# Beside .venv, whose packages it has but for those that it needs in another version.
.venv-page/installed: .venv/installed-test
	$(BIN)/python -m venv --clear .venv-page
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$(.venv-page/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/beside.pth
	.venv-page/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test,demo]"
	touch $@

.venv-2.%/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-2.$*
	.venv-2.$*/bin/python -m pip install --quiet --disable-pip-version-check mindspore==2.$* -r requirements.txt
	.venv-2.$*/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@
