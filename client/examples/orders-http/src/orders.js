// What the business does with an order. A tenth of the first attempts fails, to show what happens then.

// mulberry32: small, and the same numbers for the same seed.
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function orderHandler({ failureRate, failureSeed }) {
  const random = randomNumbers(failureSeed);
  return async function handle(order) {
    if (order.items.some(({ sku }) => sku === 'discontinued')) throw new Error('there is no such article any more');
    if (random() < failureRate) throw new Error('the payment service does not answer');
    return { total: order.items.reduce((sum, { price, quantity }) => sum + price * quantity, 0) };
  };
}

// What is wrong with the body of a request, or nothing.
export function complaint(order) {
  if (order === null || typeof order !== 'object') return 'the body must be a JSON object';
  if (order.orderId !== undefined && !/^[\w-]{1,64}$/.test(order.orderId)) return 'orderId: 1 to 64 of A-Z a-z 0-9 _ -';
  if (typeof order.customer !== 'string' || order.customer === '') return 'customer must be a text';
  if (!Array.isArray(order.items) || order.items.length === 0) return 'items must be a list with an item';
  for (const { sku, price, quantity } of order.items.map((item) => item ?? {})) {
    if (typeof sku !== 'string' || !(price >= 0) || !Number.isInteger(quantity) || quantity < 1) {
      return 'each item needs a sku, a price and a quantity';
    }
  }
  return undefined;
}
