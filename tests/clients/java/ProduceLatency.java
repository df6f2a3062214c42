// Produces at a steady rate until it is killed, and prints for each phase how long its messages took from send() to the
// broker's acknowledgement, in microseconds: `phase 3: 50000 sent, 812 p50, 1630 p99, 9811 max`. ProducerPerformance
// prints whole milliseconds, and only at its end.

import java.util.Properties;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.Recorder;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class ProduceLatency {
    private ProduceLatency() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        properties.put("client.id", "latency");
        properties.put("compression.type", options.get("codec", "none"));
        // an agent that comes later learns the topic's name from it
        properties.put("metadata.max.age.ms", "1000");
        byte[] payload = new byte[(int) options.number("payload", 1024)];
        Random random = new Random(0);
        for (int i = 0; i < payload.length; i++) {
            payload[i] = (byte) ('A' + random.nextInt(26));
        }
        double perNano = options.number("rate", 1000) / 1e9;
        long phase = TimeUnit.MILLISECONDS.toNanos(options.number("phase-ms", 1000));
        var record = new ProducerRecord<byte[], byte[]>(options.get("topic"), payload);
        Recorder recorder = new Recorder(3);
        try (var producer = new KafkaProducer<byte[], byte[]>(
                properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            long start = System.nanoTime();
            long sent = 0;
            for (int phases = 0; ; phases++) {
                long end = start + phase * (phases + 1);
                for (long now = System.nanoTime(); now < end; now = System.nanoTime()) {
                    for (long due = (long) ((now - start) * perNano); sent < due; sent++) {
                        long since = System.nanoTime();
                        producer.send(record, (metadata, error) -> {
                            if (error != null) {
                                error.printStackTrace();
                                Runtime.getRuntime().halt(1);
                            }
                            recorder.recordValue((System.nanoTime() - since) / 1000);
                        });
                    }
                    LockSupport.parkNanos(200_000);
                }
                Histogram latency = recorder.getIntervalHistogram();
                System.out.printf("phase %d: %d sent, %d p50, %d p99, %d max%n", phases, latency.getTotalCount(),
                        latency.getValueAtPercentile(50), latency.getValueAtPercentile(99), latency.getMaxValue());
            }
        }
    }
}
