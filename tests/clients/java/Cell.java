// Where and how a producer writes: one cell, or all of `--cells TOPIC:CODEC:MODE,…`, where the mode is `plain` (acks=1),
// `idempotent` or `transactional`, with the topic as transactional id.

import java.util.ArrayList;
import java.util.List;

record Cell(String topic, String codec, String acks, String idempotence, String transactionalId) {
    static List<Cell> of(Options options) {
        String cells = options.get("cells", "");
        if (cells.isEmpty()) {
            return List.of(new Cell(
                    options.get("topic"), options.get("codec", "none"), options.get("acks", "all"),
                    options.get("idempotence", "true"), options.get("transactional-id", null)));
        }
        List<Cell> all = new ArrayList<>();
        for (String cell : cells.split(",")) {
            String[] parts = cell.split(":");
            boolean plain = parts[2].equals("plain");
            all.add(new Cell(
                    parts[0], parts[1], plain ? "1" : "all", plain ? "false" : "true",
                    parts[2].equals("transactional") ? parts[0] : null));
        }
        return all;
    }
}
