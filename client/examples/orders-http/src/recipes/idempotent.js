// Recipe: handlers that may run twice. An order can come again: the handler died before XACK, its XACK was lost, or the
// producer sent the order twice because it did not hear the answer. What makes that harmless is a mark for each order,
// written in the same MULTI as the outcome and the XACK, under WATCH: whoever comes second finds the mark and only
// acknowledges.
//
// The mark is a stream with one entry, so that this works where there is nothing but streams. What the handler does
// elsewhere (a payment, a mail) must take the order's id as its own idempotency key: no store can undo a mail.
import { WatchError } from 'redis';

export const markOf = (orderId) => `orders:done:${orderId}`;

// Writes `fields` to the stream `outcome` and acknowledges the entry. Says whether this was the first time.
export function settle(connection, { stream, group }, entryId, orderId, outcome, fields) {
  const mark = markOf(orderId);
  return connection.run(async (redis) => {
    for (;;) {
      await redis.watch(mark);
      if ((await redis.exists(mark)) === 1) {
        await redis.unwatch();
        await redis.xAck(stream, group, entryId);
        return false;
      }
      try {
        await redis
          .multi()
          .xAdd(mark, '1-1', { entry: entryId, outcome })
          .xAdd(outcome, '*', fields)
          .xAck(stream, group, entryId)
          .exec();
        return true;
      } catch (error) {
        if (!(error instanceof WatchError)) throw error;
        // Somebody else was faster; the next round finds the mark.
      }
    }
  });
}

// Marks are kept as long as an order may still come again; then they go, with the outcomes that name them.
export async function forget(connection, { confirmed, dead, rememberMs }) {
  const before = `${Math.max(0, Date.now() - rememberMs)}-0`;
  let forgotten = 0;
  for (const outcome of [confirmed, dead]) {
    for (;;) {
      const old = await connection.run((redis) => redis.xRange(outcome, '-', `(${before}`, { COUNT: 500 }));
      if (old.length === 0) break;
      // First the marks: if this ends halfway, the outcomes still say which are left.
      await connection.run((redis) => redis.del(old.map(({ message }) => markOf(message.orderId))));
      await connection.run((redis) =>
        redis.xDel(
          outcome,
          old.map(({ id }) => id),
        ),
      );
      forgotten += old.length;
    }
  }
  return forgotten;
}
