// Produces messages and logs each as the broker acknowledged it, with the headers that were really sent. Under the
// OpenTelemetry Java agent those are the agent's too, as it adds them to the record inside send().

import java.util.Properties;
import java.util.Random;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public final class TruthProducer {
    private TruthProducer() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        properties.put("client.id", options.get("client-id"));
        properties.put("compression.type", options.get("codec", "none"));
        properties.put("acks", options.get("acks", "all"));
        properties.put("enable.idempotence", options.get("idempotence", "true"));
        properties.put("linger.ms", options.get("linger-ms", "5"));
        String topic = options.get("topic");
        String style = options.get("header-style", "none");
        String keyPrefix = options.get("key-prefix", options.get("client-id"));
        String value = payload((int) options.number("payload", 100));
        long interval = options.number("interval-ms", 0);
        Random random = new Random();
        boolean[] failed = {false};
        try (Truth truth = new Truth(options)) {
            try (var producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
                for (long i = 0; i < options.number("count", 1); i++) {
                    var record = new ProducerRecord<>(topic, keyPrefix + "-" + i, value);
                    HeaderStyle.write(style, record.headers(), random);
                    producer.send(record, (metadata, error) -> {
                        if (error != null) {
                            failed[0] = true;
                            truth.error(error);
                            return;
                        }
                        truth.message("sent", null, metadata.topic(), metadata.partition(),
                                metadata.hasOffset() ? metadata.offset() : -1, metadata.timestamp(), record.key(),
                                metadata.serializedValueSize(), record.headers());
                    });
                    if (interval > 0) {
                        Thread.sleep(interval);
                    }
                }
            }
        }
        System.exit(failed[0] ? 1 : 0);
    }

    /** Compressible, but not all the same byte. */
    private static String payload(int length) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; text.length() < length; i++) {
            text.append("item-").append(i).append(' ');
        }
        return text.substring(0, length);
    }
}
