// The trace header styles that a producer can write, each message with a context of its own.

import java.nio.charset.StandardCharsets;
import java.util.Random;
import org.apache.kafka.common.header.Headers;

final class HeaderStyle {
    private HeaderStyle() {}

    /** `number` is the message's. */
    static void write(String style, Headers headers, Random random, long number) {
        String trace = hex(random) + hex(random);
        String span = hex(random);
        switch (style) {
            case "none" -> {}
            case "traceparent" -> put(headers, "traceparent", "00-" + trace + "-" + span + "-01");
            case "b3" -> put(headers, "b3", trace + "-" + span + "-1");
            case "b3-multi" -> {
                put(headers, "X-B3-TraceId", trace);
                put(headers, "X-B3-SpanId", span);
                put(headers, "X-B3-Sampled", "1");
            }
            case "trace_id" -> pair(headers, "trace_id", trace, "span_id", span);
            case "traceId" -> pair(headers, "traceId", trace, "spanId", span);
            case "trace-id" -> pair(headers, "trace-id", trace, "span-id", span);
            case "edges" -> edges(headers, trace, span, number);
            default -> throw new IllegalArgumentException("unknown header style: " + style);
        }
    }

    /** Four kinds in turn; what a reader may stumble over: a key twice, no value, an empty key, bytes that are no text. */
    private static void edges(Headers headers, String trace, String span, long number) {
        switch ((int) (number % 4)) {
            case 0 -> {
                put(headers, "content-type", "text/plain");
                put(headers, "traceparent", "00-" + trace + "-" + span + "-01");
            }
            case 1 -> {
                put(headers, "b3", trace + "-" + span + "-1");
                put(headers, "twice", "1");
                put(headers, "twice", "2");
            }
            case 2 -> {
                headers.add("nothing", null);
                put(headers, "", "empty key");
                headers.add("bytes", new byte[] {(byte) 0xff, 0, (byte) 0xfe});
            }
            default -> {}
        }
    }

    private static void pair(Headers headers, String traceKey, String trace, String spanKey, String span) {
        put(headers, traceKey, trace);
        put(headers, spanKey, span);
    }

    private static void put(Headers headers, String key, String value) {
        headers.add(key, value.getBytes(StandardCharsets.UTF_8));
    }

    private static String hex(Random random) {
        return String.format("%016x", random.nextLong() | 1);
    }
}
