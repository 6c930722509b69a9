"""The command `efficientsam3`. What is heavy is imported by the command that needs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from service import cli_bench, cli_keys, cli_segment, cli_track, cli_variants, event_loop
from service.cli_common import CommandError, expected, need, settings_of, wrong_usage

app = typer.Typer(
    name="efficientsam3",
    help="Serve EfficientSAM3 students: a noun phrase in, every instance's mask out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_variants.app, name="variants")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_bench.app, name="bench")

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
HttpPort = Annotated[int | None, typer.Option(help="Port of HTTP; 0: any free one.", show_default="8080")]
GrpcPort = Annotated[int | None, typer.Option(help="Port of gRPC; 0: any free one.", show_default="8081")]
Store = Annotated[Path | None, typer.Option(help="Folder of artefacts.", show_default="the user's cache")]
EngineOption = Annotated[str | None, typer.Option(help="auto, openvino or onnxruntime.", show_default="auto")]
PrecisionOption = Annotated[str | None, typer.Option(help="auto, f32, bf16 or f16.", show_default="auto")]
Threads = Annotated[
    int | None, typer.Option(help="Threads of the engine; 0: one per core.", show_default="0")
]


@app.command()
def serve(
    variants: Annotated[
        list[str] | None,
        typer.Argument(help="Variants to serve; the first is the default.", show_default="demo"),
    ] = None,
    workers_per_variant: Annotated[int, typer.Option(min=1, max=64, help="Worker processes each.")] = 1,
    host: Host = None,
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
    store: Store = None,
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
) -> None:
    """Serve variants on this machine: a gateway, and worker processes beside it."""
    from model_store import registry
    from service import supervisor
    from service.config import ServeSettings
    from service.gateway.facts import describe
    from service.telemetry import configure_logging

    settings = settings_of(
        ServeSettings,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        store=store,
        engine=engine,
        precision=precision,
        threads=threads,
    )
    configure_logging(settings)
    chosen = list(dict.fromkeys(variants or [registry.EMBEDDED]))
    for variant in chosen:
        if cli_variants.manifest_of(settings.store, variant).synthetic:
            _say(f"{variant} has SYNTHETIC weights: true cost, but it finds nothing meaningful.")
    command = supervisor.worker_command(settings, workers_per_variant * len(chosen))
    event_loop.run(supervisor.serve(settings, chosen, workers_per_variant, command, describe, _say))


@app.command()
def gateway(host: Host = None, http_port: HttpPort = None, grpc_port: GrpcPort = None) -> None:
    """Run a gateway alone. EFFICIENTSAM3_WORKERS names its workers: {"VARIANT": ["host:port", ...]}."""
    from service.config import GatewaySettings
    from service.gateway import server
    from service.gateway.facts import describe
    from service.telemetry import configure_logging

    settings = settings_of(GatewaySettings, host=host, http_port=http_port, grpc_port=grpc_port)
    configure_logging(settings)
    event_loop.run(server.run(settings, describe, _say))


@app.command()
def worker(
    variant: Annotated[str, typer.Argument(help="The variant to serve.")],
    listen: Annotated[
        str | None, typer.Option(help="host:port, or unix:/path.", show_default="127.0.0.1:50061")
    ] = None,
    store: Store = None,
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    parent_fd: Annotated[
        int | None, typer.Option(help="Stop when this inherited descriptor reads end of file.")
    ] = None,
) -> None:
    """Run one worker alone. A gateway finds it by EFFICIENTSAM3_WORKERS."""
    from service.config import WorkerSettings
    from service.telemetry import configure_logging

    server = need("service.worker.server", "cpu")
    settings = settings_of(
        WorkerSettings, listen=listen, store=store, engine=engine, precision=precision, threads=threads
    )
    configure_logging(settings)
    try:
        event_loop.run(server.run_worker(settings, variant, parent_fd))
    except server.StartError as error:
        raise CommandError(str(error)) from error


app.command()(cli_segment.segment)
app.command()(cli_track.track)


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    """Run the command. Exit code 1 and one line for an expected failure, 2 for wrong usage."""
    try:
        app(arguments)
    except Exception as error:
        message = expected(error)
        if message is None:
            raise
        typer.echo(f"efficientsam3: {message}", err=True)
        sys.exit(2 if wrong_usage(error) else 1)


if __name__ == "__main__":
    main()
