# make demo: the environment, then Table 3 on MovingDigits, four rows, one seed: about five minutes on 2 cores
# make test: the environment, then the tests
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: demo test test-slurm lint figures notebooks report clean

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check --progress-bar off -q -r requirements.txt
	touch $@

demo: .venv/ready
	$(RUN) experiments/table3_groups.py --home demo --seeds 0 --only simple simple-D bottleneck bottleneck-D

test: .venv/ready
	$(RUN) -m pytest -n auto --maxprocesses 8 --dist loadfile

test-slurm: .venv/ready
	-$(RUN) slurm/local_cluster.py install
	$(RUN) -m pytest -m slurm -rs tests/slurm

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check -q .
	.venv/bin/mypy

# every figure of the tables, SVG and PNG, and the claims, from the CSVs (benchmarks write their own, PNG only)
figures: .venv/ready
	for table in experiments/table*.py; do $(RUN) $$table --show || exit 1; done
	for table in experiments/table[234]_*.py; do $(RUN) $$table --show --scale photo || exit 1; done
	$(RUN) -m csn.claims

# the notebooks run again, with their output
notebooks: .venv/ready
	$(RUN) -m jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/table*.ipynb notebooks/summary.ipynb

# one HTML page: every table, figure and verdict
report: .venv/ready
	$(RUN) -m csn.report report.html

clean:
	rm -rf .venv demo
