// Recipe: dead letters. Redis counts how often an entry was delivered and does nothing with it. Here, what was delivered
// often enough and is still pending goes to a stream of its own, in one MULTI with its XACK.
import { settle } from './idempotent.js';

// Says how many orders were moved.
export async function moveToDeadLetters(connection, config) {
  const { stream, group, dead, maxDeliveries, reclaimIdleMs } = config;
  let moved = 0;
  // By pages, so that one that is full of young entries does not hide the old ones behind it.
  for (let start = '-'; ;) {
    const rows = await connection.run((redis) =>
      redis.xPendingRange(stream, group, start, '+', 100, { IDLE: reclaimIdleMs }),
    );
    for (const { id, deliveriesCounter, consumer } of rows) {
      if (deliveriesCounter < maxDeliveries) continue;
      const [entry] = await connection.run((redis) => redis.xRange(stream, id, id));
      if (!entry) {
        // Trimmed meanwhile: there is nothing left to keep.
        await connection.run((redis) => redis.xAck(stream, group, id));
        continue;
      }
      const orderId = orderIdOf(entry);
      const fields = { ...entry.message, orderId, entry: id, deliveries: `${deliveriesCounter}`, last: consumer };
      if (await settle(connection, config, id, orderId, dead, fields)) moved += 1;
    }
    if (rows.length < 100) return moved;
    start = `(${rows.at(-1).id}`;
  }
}

// An entry that is no order has only the entry's id.
function orderIdOf({ id, message }) {
  try {
    return JSON.parse(message.data).orderId ?? id;
  } catch {
    return id;
  }
}
