# GlassGPT on a CPU:
#   docker build -t glassgpt .
#   docker run --rm -it --user "$(id -u)" -v "$PWD:/data" glassgpt train char-tiny --data my.txt --run mine
# Runs land in ./runs, owned by you. The image is not part of the automatic checks.
FROM python:3.12-slim

WORKDIR /opt/glassgpt
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY glassgpt ./glassgpt
COPY docs/course ./docs/course
# PyTorch's own index has a CPU build of the pinned torch, which pip prefers: 1.1 GB installed instead of 5.5 GB.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt .

# Any user may run it, one without a home too.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["glassgpt"]
CMD ["--help"]
