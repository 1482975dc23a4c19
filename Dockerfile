FROM python:3.13-slim
WORKDIR /app
COPY requirements.txt .
RUN python -m pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --system palimpsest && install -d -o palimpsest /data
USER palimpsest
ENV DATA_DIR=/data HOST=0.0.0.0
CMD ["python", "-m", "config.stack", "web"]
