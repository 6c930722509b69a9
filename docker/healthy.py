#!/opt/efficientsam3/bin/python
"""The images' health check: exit code 0 where the gRPC server at an address says that it serves, else 1."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

try:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
except grpc.RpcError as error:
    sys.exit(str(error))
sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)
