# The trace header styles that a producer can write, each message with a context of its own.
import secrets


def write(style, number=0):
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    match style:
        case "none":
            return []
        case "traceparent":
            return [("traceparent", f"00-{trace}-{span}-01")]
        case "b3":
            return [("b3", f"{trace}-{span}-1")]
        case "b3-multi":
            return [("X-B3-TraceId", trace), ("X-B3-SpanId", span), ("X-B3-Sampled", "1")]
        case "trace_id":
            return [("trace_id", trace), ("span_id", span)]
        case "traceId":
            return [("traceId", trace), ("spanId", span)]
        case "trace-id":
            return [("trace-id", trace), ("span-id", span)]
        case "edges":
            # four kinds in turn; what a reader may stumble over: a key twice, no value, an empty key, no text
            return [
                [("content-type", "text/plain"), ("traceparent", f"00-{trace}-{span}-01")],
                [("b3", f"{trace}-{span}-1"), ("twice", "1"), ("twice", "2")],
                [("nothing", None), ("", "empty key"), ("bytes", b"\xff\0\xfe")],
                [],
            ][number % 4]
    raise SystemExit(f"unknown header style: {style}")
