// Writes what a client knows about its messages, one JSON object a line.

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;

final class Truth implements AutoCloseable {
    private final PrintWriter file;
    private final String who;

    Truth(Options options) throws IOException {
        file = new PrintWriter(Files.newBufferedWriter(Path.of(options.get("truth"))));
        who = "\"client\":" + text(options.get("client", "java"))
                + ",\"service\":" + text(options.get("service"))
                + ",\"client_id\":" + text(options.get("client-id"));
    }

    /** `offset` below 0 means that the broker did not return it (acks=0). */
    synchronized void message(
            String event, String group, String topic, int partition, long offset, long timestamp, String key,
            int valueLength, Headers headers) {
        StringBuilder line = new StringBuilder("{\"event\":").append(text(event)).append(',').append(who)
                .append(",\"group\":").append(text(group))
                .append(",\"topic\":").append(text(topic))
                .append(",\"partition\":").append(partition)
                .append(",\"offset\":").append(offset < 0 ? "null" : Long.toString(offset))
                .append(",\"timestamp\":").append(timestamp)
                .append(",\"key\":").append(text(key))
                // when the client got to know of it, rounded up
                .append(",\"end_us\":").append((System.currentTimeMillis() + 1) * 1000)
                .append(",\"value_len\":").append(valueLength < 0 ? "null" : Integer.toString(valueLength))
                .append(",\"headers\":[");
        String comma = "";
        for (Header header : headers) {
            line.append(comma).append('[').append(text(header.key())).append(',').append(value(header.value())).append(']');
            comma = ",";
        }
        file.println(line.append("]}"));
    }

    /** `error` is Kafka's name of it, null for none. */
    synchronized void acknowledged(
            String group, String topic, int partition, long offset, int delivery, String type, String error) {
        file.println("{\"event\":\"acknowledged\"," + who + ",\"group\":" + text(group) + ",\"topic\":" + text(topic)
                + ",\"partition\":" + partition + ",\"offset\":" + offset + ",\"delivery\":" + delivery
                + ",\"acknowledge\":" + text(type) + ",\"error\":" + text(error) + "}");
    }

    /** What was sent since the last such line was one transaction. */
    synchronized void transactionEnds(boolean committed) {
        file.println("{\"event\":" + text(committed ? "committed" : "aborted") + "," + who + "}");
    }

    synchronized void error(Exception error) {
        file.println("{\"event\":\"error\"," + who + ",\"error\":" + text(error.toString()) + "}");
        file.flush();
    }

    synchronized void flush() {
        file.flush();
    }

    @Override
    public synchronized void close() {
        file.close();
    }

    private static String value(byte[] bytes) {
        if (bytes == null) {
            return "null";
        }
        try {
            return text(StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString());
        } catch (CharacterCodingException binary) {
            return "{\"base64\":\"" + Base64.getEncoder().encodeToString(bytes) + "\"}";
        }
    }

    private static String text(String plain) {
        if (plain == null) {
            return "null";
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : plain.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
