"""The project that the benchmarks deploy: charts of one small pod each."""

from __future__ import annotations

import subprocess
from pathlib import Path

_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector:
    matchLabels: {app.kubernetes.io/instance: {{ .Release.Name }}}
  template:
    metadata:
      labels: {app.kubernetes.io/instance: {{ .Release.Name }}}
      annotations: {version: {{ .Values.version | quote }}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: {{ .Values.reference | quote }}
          command: [sh, -c, "sleep {{ .Values.start }}; exec python3 -m http.server 8080"]
          readinessProbe:
            httpGet: {path: /, port: 8080}
            periodSeconds: 1
          resources:
            requests: {cpu: 10m, memory: 16Mi}
            limits: {cpu: 500m, memory: 64Mi}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}
spec:
  selector: {app.kubernetes.io/instance: {{ .Release.Name }}}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""

# What `sandbox up` gives a namespace, for whoever does the same by hand.
GUARDRAILS = """\
apiVersion: v1
kind: ResourceQuota
metadata: {name: by-hand}
spec:
  hard: {requests.cpu: "2", requests.memory: 4Gi, limits.cpu: "8", limits.memory: 8Gi, pods: "20", secrets: "200"}
---
apiVersion: v1
kind: LimitRange
metadata: {name: by-hand}
spec:
  limits: [{type: Container, default: {cpu: 500m, memory: 256Mi}, defaultRequest: {cpu: 50m, memory: 64Mi}}]
"""


def write_project(folder: Path, charts: int, image: str, *, start: int = 0) -> list[str]:
    """Write a git repository with some independent charts; their names.

    Args:
        image: any image with python3 that the cluster can pull.
        start: seconds until a service listens.
    """
    names = [f"chart{number}" for number in range(charts)]
    services = []
    for name in names:
        chart = folder / name
        (chart / "templates").mkdir(parents=True)
        (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: 0.1.0\n")
        (chart / "values.yaml").write_text(f'reference: {image}\nversion: "1"\nstart: {start}\n')
        (chart / "templates" / "all.yaml").write_text(_DEPLOYMENT)
        services.append(f"  {name}: {{chart: {{path: {name}}}}}\n")
    (folder / "sandbox.yaml").write_text(f"apiVersion: sandbox.dev/v1\nproject: bench\nservices:\n{''.join(services)}")
    identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.com"]
    for argv in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "Charts"]):
        subprocess.run(["git", *argv], cwd=folder, check=True, timeout=60)
    return names
