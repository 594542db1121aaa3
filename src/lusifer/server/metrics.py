"""The metrics of the server, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
SIZES = tuple(2**power for power in range(0, 18, 2))


class Metrics:
    """The metrics of one server; `Meter` has those of one model."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("lusifer_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "lusifer_request_seconds", "From the headers of a request to its answer", ["route"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.left = Counter("lusifer_clients_left", "Clients that disconnected before the answer", registry=registry)
        self.per_model = {
            "queue_tokens": Gauge(
                "lusifer_queue_tokens", "Tokens that wait or are being computed", ["model"], registry=registry
            ),
            "queue_texts": Gauge("lusifer_queue_texts", "Texts that wait", ["model"], registry=registry),
            "budget": Gauge(
                "lusifer_batch_budget_tokens", "Current maximum of tokens per batch", ["model"], registry=registry
            ),
            "texts": Counter("lusifer_texts", "Texts embedded", ["model"], registry=registry),
            "tokens": Counter("lusifer_tokens", "Tokens read, without padding", ["model"], registry=registry),
            "truncated": Counter(
                "lusifer_truncated_texts", "Texts truncated at the limit", ["model"], registry=registry
            ),
            "dropped": Counter(
                "lusifer_dropped_texts", "Texts dropped because their client disconnected", ["model"], registry=registry
            ),
            "out_of_memory": Counter(
                "lusifer_out_of_memory_batches", "Batches that ran out of memory", ["model"], registry=registry
            ),
            "tokenized": self._seconds("lusifer_tokenize_seconds", "Tokenization of a request"),
            "queued": self._seconds("lusifer_queue_seconds", "From the queue to the first batch of a request"),
            "inference": self._seconds("lusifer_inference_seconds", "Computation of a batch"),
            "batch_texts": self._sizes("lusifer_batch_texts", "Texts per batch"),
            "batch_tokens": self._sizes("lusifer_batch_tokens", "Tokens per batch, without padding"),
            "text_tokens": self._sizes("lusifer_text_tokens", "Tokens per text, before truncation"),
        }
        self.unscored = Counter(
            "lusifer_unscored_texts", "Texts in a language for which the model has no score",
            ["model", "kind", "language"], registry=registry,
        )  # fmt: skip

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(name, what, ["model"], buckets=SECONDS, registry=self.registry)

    def _sizes(self, name: str, what: str) -> Histogram:
        return Histogram(name, what, ["model"], buckets=SIZES, registry=self.registry)

    def page(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class Meter:
    """The metrics of one model, by the names in `Metrics.per_model`."""

    queue_tokens: Gauge
    queue_texts: Gauge
    budget: Gauge
    texts: Counter
    tokens: Counter
    truncated: Counter
    dropped: Counter
    out_of_memory: Counter
    tokenized: Histogram
    queued: Histogram
    inference: Histogram
    batch_texts: Histogram
    batch_tokens: Histogram
    text_tokens: Histogram

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.model, self._unscored = model, metrics.unscored
        for name, metric in metrics.per_model.items():
            setattr(self, name, metric.labels(model))

    def batch(self, tokens: int, texts: int, seconds: float) -> None:
        """Count a computed batch.

        Args:
            tokens: Its tokens, without padding.
            texts: Its texts.
            seconds: How long it took.
        """
        self.tokens.inc(tokens)
        self.texts.inc(texts)
        self.batch_tokens.observe(tokens)
        self.batch_texts.observe(texts)
        self.inference.observe(seconds)

    def unscored(self, kind: str, language: str) -> None:
        """Count a text in a language for which the model has no score; arguments as in `LanguageGuard.find`."""
        self._unscored.labels(self.model, kind, language).inc()
