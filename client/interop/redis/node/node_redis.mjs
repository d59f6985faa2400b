// node-redis, as of today, through every case of cases.txt and through the leader's end.
import { createRequire } from 'node:module';
import { createClient, ErrorReply, RESP_TYPES, WatchError } from 'redis';
import {
  equal,
  errorOf,
  failover,
  holds,
  options,
  order,
  pairs,
  pick,
  Report,
  sleep,
  STREAM,
  within,
} from './support.mjs';

const { address, faults, part, protocol } = options();

async function connect(turn, more = {}) {
  const client = createClient({ socket: address(turn), RESP: protocol, ...more });
  // Without a listener, the loss of the connection would end the process.
  client.on('error', () => {});
  return client.connect();
}

const messages = (stream) => stream.map(({ id, message }) => [id, { ...message }]);

// What XREAD and XREADGROUP replied: the entries by stream.
function byStream(reply) {
  return Object.fromEntries((reply ?? []).map(({ name, messages: of }) => [name, messages(of)]));
}

const r = await connect(0);

async function waitBlocked(count, door = r) {
  await within(5000, `${count} clients are blocked`, async () =>
    (await door.info('clients')).includes(`blocked_clients:${count}\r\n`),
  );
}

const cases = {
  async 'order-tracker'() {
    await r.xAdd('left-over', '*', { a: 'b' });
    equal(await r.flushAll(), 'OK', 'FLUSHALL');
    equal(await r.dbSize(), 0, 'keys after FLUSHALL');
    const ids = [];
    for (let n = 0; n < 5; n += 1) ids.push(await r.xAdd('orders:stream', '*', { data: order(n) }));
    equal(await r.xLen('orders:stream'), 5, 'XLEN');
    const history = messages(await r.xRange('orders:stream', '-', '+'));
    equal(
      history,
      ids.map((id, n) => [id, { data: order(n) }]),
      'the history',
    );
    const newest = await r.xRevRange('orders:stream', '+', '-', { COUNT: 2 });
    equal(
      newest.map(({ message }) => JSON.parse(message.data).orderId),
      ['order-4', 'order-3'],
      'newest first',
    );
    for (const [n, status] of [
      [1, 'paid'],
      [3, 'paid'],
      [1, 'shipped'],
    ]) {
      await r.xAdd('orders:stream', '*', { data: order(n, status) });
    }
    const latest = {};
    for (const { message } of await r.xRange('orders:stream', '-', '+')) {
      const { orderId, status } = JSON.parse(message.data);
      latest[orderId] = status;
    }
    const expected = {
      'order-0': 'created',
      'order-1': 'shipped',
      'order-2': 'created',
      'order-3': 'paid',
      'order-4': 'created',
    };
    equal(latest, expected, 'the latest status of each order');
  },

  async 'producer-consumer'() {
    async function produce() {
      const producer = await connect(1);
      const ids = [];
      for (let n = 0; n < 50; n += 1) ids.push(await producer.xAdd('pc', '*', { n: `${n}` }));
      await producer.close();
      return ids;
    }
    const produced = produce();
    const seen = [];
    let last = '0-0';
    while (seen.length < 50) {
      const reply = byStream(await r.xRead({ key: 'pc', id: last }, { COUNT: 10, BLOCK: 2000 }));
      equal(Object.keys(reply), ['pc'], 'entries before the time ran out');
      seen.push(...reply.pc.map(([id, { n }]) => [id, n]));
      last = seen.at(-1)[0];
    }
    equal(
      seen,
      (await produced).map((id, n) => [id, `${n}`]),
      'what the consumer saw',
    );
  },

  async 'group-acks'() {
    equal(await r.xGroupCreate('ga', 'workers', '0', { MKSTREAM: true }), 'OK', 'XGROUP CREATE MKSTREAM');
    const busy = await errorOf(r.xGroupCreate('ga', 'workers', '0'));
    equal(busy, 'BUSYGROUP Consumer Group name already exists', 'a second XGROUP CREATE');
    const ids = [];
    for (let n = 0; n < 20; n += 1) ids.push(await r.xAdd('ga', '*', { n: `${n}` }));
    const got = { alice: [], bob: [] };
    for (const consumer of ['alice', 'bob', 'bob', 'alice']) {
      const reply = byStream(await r.xReadGroup('workers', consumer, { key: 'ga', id: '>' }, { COUNT: 5 }));
      got[consumer].push(...reply.ga.map(([id]) => id));
    }
    equal(got, { alice: [...ids.slice(0, 5), ...ids.slice(15)], bob: ids.slice(5, 15) }, 'who got what');
    equal(await r.xReadGroup('workers', 'alice', { key: 'ga', id: '>' }), null, 'nothing is left');
    const consumers = [
      { name: 'alice', deliveriesCounter: 10 },
      { name: 'bob', deliveriesCounter: 10 },
    ];
    const expected = { pending: 20, firstId: ids[0], lastId: ids[19], consumers };
    equal(await r.xPending('ga', 'workers'), expected, 'XPENDING');
    equal(await r.xAck('ga', 'workers', got.alice), 10, 'XACK');
    equal(await r.xAck('ga', 'workers', [got.alice[0], got.bob[0]]), 1, 'XACK, one of them again');
    const left = (await r.xPending('ga', 'workers')).consumers;
    equal(left, [{ name: 'bob', deliveriesCounter: 9 }], 'XPENDING after XACK');
    equal(await r.xAck('ga', 'workers', got.bob), 9, 'XACK of the rest');
    const nothing = { pending: 0, firstId: null, lastId: null, consumers: null };
    equal(await r.xPending('ga', 'workers'), nothing, 'XPENDING at the end');
  },

  async 'pending-recovery'() {
    const ids = [];
    for (let n = 0; n < 6; n += 1) ids.push(await r.xAdd('pr', '*', { n: `${n}` }));
    await r.xGroupCreate('pr', 'g', '0');
    await r.xReadGroup('g', 'gone', { key: 'pr', id: '>' });
    const rows = await r.xPendingRange('pr', 'g', '-', '+', 10);
    equal(
      rows.map(({ id, consumer, deliveriesCounter }) => [id, consumer, deliveriesCounter]),
      ids.map((id) => [id, 'gone', 1]),
      'rows of XPENDING',
    );
    const idle = rows.map((row) => row.millisecondsSinceLastDelivery);
    holds(
      idle.every((ms) => 0 <= ms && ms < 60_000),
      `idle times ${idle}`,
    );
    equal(await r.xPendingRange('pr', 'g', '-', '+', 10, { consumer: 'nobody' }), [], 'XPENDING of nobody');
    equal(await r.xPendingRange('pr', 'g', '-', '+', 10, { IDLE: 60_000 }), [], 'XPENDING IDLE');
    equal(await r.xClaim('pr', 'g', 'heir', 60_000, ids[0]), [], 'XCLAIM of an entry too young');
    equal(messages(await r.xClaim('pr', 'g', 'heir', 0, ids[0])), [[ids[0], { n: '0' }]], 'XCLAIM');
    const [row] = await r.xPendingRange('pr', 'g', ids[0], ids[0], 1);
    equal([row.consumer, row.deliveriesCounter], ['heir', 2], 'the claimed row');
    equal(await r.xDel('pr', ids[3]), 1, 'XDEL');
    const first = await r.xAutoClaim('pr', 'g', 'heir', 0, '0-0', { COUNT: 2 });
    equal(
      [first.nextId, first.messages.map(({ id }) => id), first.deletedMessages],
      [ids[2], ids.slice(0, 2), []],
      'XAUTOCLAIM, first page',
    );
    const rest = await r.xAutoClaim('pr', 'g', 'heir', 0, first.nextId, { COUNT: 10 });
    equal(
      [rest.nextId, messages(rest.messages), rest.deletedMessages],
      ['0-0', [2, 4, 5].map((n) => [ids[n], { n: `${n}` }]), [ids[3]]],
      'XAUTOCLAIM, the rest',
    );
    const young = await r.xAutoClaim('pr', 'g', 'heir', 60_000, '0-0');
    equal(young, { nextId: '0-0', messages: [], deletedMessages: [] }, 'XAUTOCLAIM of entries too young');
    const justId = await r.xAutoClaimJustId('pr', 'g', 'third', 0, '0-0', { COUNT: 1 });
    equal([justId.nextId, justId.messages], [ids[1], [ids[0]]], 'XAUTOCLAIM JUSTID');
    const counts = (await r.xPendingRange('pr', 'g', '-', '+', 10)).map((one) => [one.id, one.deliveriesCounter]);
    equal(
      counts,
      [0, 1, 2, 4, 5].map((n) => [ids[n], n === 0 ? 3 : 2]),
      'times delivered',
    );
    equal(await r.xGroupDelConsumer('pr', 'g', 'heir'), 4, 'XGROUP DELCONSUMER');
    equal(await r.xGroupDelConsumer('pr', 'g', 'gone'), 0, 'XGROUP DELCONSUMER without pending entries');
    equal((await r.xPending('pr', 'g')).pending, 1, 'what is pending at the end');
  },

  async 'trim-length'() {
    const exact = { TRIM: { strategy: 'MAXLEN', strategyModifier: '=', threshold: 10 } };
    const ids = [];
    for (let n = 0; n < 15; n += 1) ids.push(await r.xAdd('tl', '*', { n: `${n}` }, exact));
    const there = async () => (await r.xRange('tl', '-', '+')).map(({ id }) => id);
    equal(await there(), ids.slice(5), 'the newest ten');
    equal(await r.xTrim('tl', 'MAXLEN', 4), 6, 'XTRIM MAXLEN');
    equal(await there(), ids.slice(11), 'the newest four');
    equal(await r.xTrim('tl', 'MAXLEN', 4, { strategyModifier: '=' }), 0, 'XTRIM MAXLEN again');
    const about = { TRIM: { strategy: 'MAXLEN', strategyModifier: '~', threshold: 1000 } };
    await Promise.all(Array.from({ length: 500 }, (_, n) => r.xAdd('tl', '*', { n: `${n}` }, about)));
    equal(await r.xLen('tl'), 504, 'XADD MAXLEN ~ 1000 leaves what is below it');
    const removed = await r.xTrim('tl', 'MAXLEN', 100, { strategyModifier: '~' });
    const left = await r.xLen('tl');
    holds(100 <= left && removed + left === 504 && 0 < removed, `XTRIM MAXLEN ~ 100 removed ${removed}, left ${left}`);
    equal(await r.xTrim('tl', 'MAXLEN', 0), left, 'XTRIM MAXLEN 0');
    equal([await r.xLen('tl'), await r.exists('tl')], [0, 1], 'an empty stream stays');
  },

  async 'trim-time'() {
    for (let ms = 1000; ms < 2000; ms += 100) await r.xAdd('tt', `${ms}-1`, { at: `${ms}` });
    equal(await r.xTrim('tt', 'MINID', 1500), 5, 'XTRIM MINID');
    equal(
      messages(await r.xRange('tt', '-', '+', { COUNT: 1 })),
      [['1500-1', { at: '1500' }]],
      'the first that is left',
    );
    equal(await r.sendCommand(['XTRIM', 'tt', 'MINID', '1500-1']), 0, 'XTRIM MINID at the first');
    await r.xAdd(
      'tt',
      '2000-0',
      { at: '2000' },
      { TRIM: { strategy: 'MINID', strategyModifier: '=', threshold: 1801 } },
    );
    equal(
      (await r.xRange('tt', '-', '+')).map(({ id }) => id),
      ['1900-1', '2000-0'],
      'XADD MINID',
    );
    const now = Number((await r.xAdd('tt-now', '*', { a: 'b' })).split('-')[0]);
    equal(await r.xTrim('tt-now', 'MINID', now - 3_600_000), 0, 'older than an hour');
    equal(await r.xTrim('tt-now', 'MINID', now + 3_600_000), 1, 'older than in an hour');
  },

  async 'history-replay'() {
    for (let n = 0; n < 25; n += 1) await r.xAdd('hr', `${1000 + Math.floor(n / 5)}-${(n % 5) + 1}`, { n: `${n}` });
    const pages = [];
    for (let start = '-'; ;) {
      const page = await r.xRange('hr', start, '+', { COUNT: 7 });
      if (page.length === 0) break;
      pages.push(page.map(({ message }) => Number(message.n)));
      start = `(${page.at(-1).id}`;
    }
    const all = Array.from({ length: 25 }, (_, n) => n);
    equal(
      pages,
      [0, 7, 14, 21].map((n) => all.slice(n, n + 7)),
      'pages',
    );
    const ids = async (...range) => (await r.xRange('hr', ...range)).map(({ id }) => id);
    equal(
      await ids('1002', '1002'),
      [1, 2, 3, 4, 5].map((s) => `1002-${s}`),
      'one ms',
    );
    equal(await ids('1003-2', '(1003-4'), ['1003-2', '1003-3'], 'a half-open range');
    const back = await r.xRevRange('hr', '1001', '-', { COUNT: 2 });
    equal(
      messages(back),
      [
        ['1001-5', { n: '9' }],
        ['1001-4', { n: '8' }],
      ],
      'XREVRANGE',
    );
    equal(await ids('1004-4', '1004-3'), [], 'an empty range');
    equal(await r.xRange('no-such-stream', '-', '+'), [], 'XRANGE of a missing stream');
    await r.xGroupCreate('hr', 'replay', '1004-2');
    const read = async (id, more) => byStream(await r.xReadGroup('replay', 'c', { key: 'hr', id }, more));
    const expected = { hr: [3, 4, 5].map((s) => [`1004-${s}`, { n: `${19 + s}` }]) };
    equal(await read('>'), expected, "after the group's position");
    equal(await read('0'), expected, "the consumer's own history");
    equal(await r.xAck('hr', 'replay', '1004-3'), 1, 'XACK');
    equal(await read('1004-4'), { hr: [['1004-5', { n: '24' }]] }, 'its history after an id');
    await r.xAck('hr', 'replay', ['1004-4', '1004-5']);
    equal(await read('0'), { hr: [] }, 'an empty history');
    equal(await r.xGroupSetId('hr', 'replay', '0'), 'OK', 'XGROUP SETID');
    equal((await read('>', { NOACK: true })).hr.length, 25, 'everything again, NOACK');
    equal((await r.xPending('hr', 'replay')).pending, 0, 'nothing pending after NOACK');
  },

  async xinfo() {
    for (let n = 1; n <= 5; n += 1) await r.xAdd('xi', `${n}-0`, { n: `${n}` });
    await r.xGroupCreate('xi', 'g1', '0');
    await r.xGroupCreate('xi', 'g2', '$');
    await r.xReadGroup('g1', 'c', { key: 'xi', id: '>' }, { COUNT: 1 });
    const behind = { name: 'g1', 'entries-read': 1, lag: 4 };
    equal(pick((await r.xInfoGroups('xi'))[0], behind), behind, 'a group that is four entries behind');
    await r.xDel('xi', '2-0');
    equal(await r.xGroupCreateConsumer('xi', 'g1', 'idle'), 1, 'XGROUP CREATECONSUMER');
    const expected = {
      length: 4,
      'last-generated-id': '5-0',
      'max-deleted-entry-id': '2-0',
      'entries-added': 5,
      'recorded-first-entry-id': '1-0',
      groups: 2,
      'first-entry': { id: '1-0', message: { n: '1' } },
      'last-entry': { id: '5-0', message: { n: '5' } },
    };
    const info = await r.xInfoStream('xi');
    equal(pick(info, expected), expected, 'XINFO STREAM');
    holds('radix-tree-keys' in info && 'radix-tree-nodes' in info, "the radix tree's fields");
    const groups = await r.xInfoGroups('xi');
    // What is deleted behind the position makes the lag unknown.
    const g1 = { name: 'g1', consumers: 2, pending: 1, 'last-delivered-id': '1-0', 'entries-read': 1, lag: null };
    equal(pick(groups[0], g1), g1, 'XINFO GROUPS, first');
    const g2 = { name: 'g2', consumers: 0, pending: 0, 'last-delivered-id': '5-0', lag: 0 };
    equal([groups.length, pick(groups[1], g2)], [2, g2], 'XINFO GROUPS, second');
    const consumers = await r.xInfoConsumers('xi', 'g1');
    equal(
      consumers.map(({ name, pending }) => [name, pending]),
      [
        ['c', 1],
        ['idle', 0],
      ],
      'XINFO CONSUMERS',
    );
    holds(
      consumers.every(({ idle }) => 0 <= idle && idle < 60_000),
      'idle times of consumers',
    );
    // node-redis has no name for FULL.
    const map = (reply) => (Array.isArray(reply) ? pairs(reply) : reply);
    const full = map(await r.sendCommand(['XINFO', 'STREAM', 'xi', 'FULL']));
    equal(
      full.entries,
      [1, 3, 4, 5].map((n) => [`${n}-0`, ['n', `${n}`]]),
      'XINFO STREAM FULL, entries',
    );
    const group = map(full.groups[0]);
    equal([group.name, group['pel-count'], group['last-delivered-id']], ['g1', 1, '1-0'], 'a group in FULL');
    const [[id, consumer, delivered, count]] = group.pending;
    equal([id, consumer, count], ['1-0', 'c', 1], 'a pending entry in FULL');
    holds(Math.abs(delivered - Date.now()) < 60_000, 'its delivery time');
    equal(await errorOf(r.xInfoStream('nothing')), 'ERR no such key', 'XINFO STREAM of a missing stream');
    const nogroup = "NOGROUP No such consumer group 'nobody' for key name 'xi'";
    equal(await errorOf(r.xInfoConsumers('xi', 'nobody')), nogroup, 'XINFO CONSUMERS of a missing group');
  },

  async blocking() {
    const began = performance.now();
    equal(await r.xRead({ key: 'bl', id: '$' }, { BLOCK: 300 }), null, 'XREAD BLOCK without an entry');
    const took = performance.now() - began;
    holds(290 <= took && took < 2000, `BLOCK 300 took ${took} ms`);
    await r.xGroupCreate('bl', 'g', '$', { MKSTREAM: true });
    const clients = await Promise.all([0, 1].map(() => connect(0)));
    const waits = [];
    for (const [n, client] of clients.entries()) {
      waits.push(client.xReadGroup('g', `c${n}`, { key: 'bl', id: '>' }, { COUNT: 1, BLOCK: 4000 }));
      await waitBlocked(n + 1);
    }
    const ids = [await r.xAdd('bl', '*', { n: '0' }), await r.xAdd('bl', '*', { n: '1' })];
    for (const [n, wait] of waits.entries()) {
      equal(byStream(await wait), { bl: [[ids[n], { n: `${n}` }]] }, `blocked reader ${n}`);
    }
    await waitBlocked(0);

    const forever = clients[0].xRead(
      [
        { key: 'bl', id: '$' },
        { key: 'bl-other', id: '$' },
      ],
      { BLOCK: 0 },
    );
    await waitBlocked(1);
    const id = await r.xAdd('bl-other', '*', { a: 'b' });
    equal(byStream(await forever), { 'bl-other': [[id, { a: 'b' }]] }, 'XREAD BLOCK 0 of two streams');

    const clientId = await clients[0].clientId();
    const stopped = clients[0].xRead({ key: 'bl', id: '$' }, { BLOCK: 0 });
    await waitBlocked(1);
    equal(await r.sendCommand(['CLIENT', 'UNBLOCK', `${clientId}`]), 1, 'CLIENT UNBLOCK');
    equal(await stopped, null, 'a reader that CLIENT UNBLOCK stopped');
    const again = await r.sendCommand(['CLIENT', 'UNBLOCK', `${clientId}`]);
    equal(again, 0, 'CLIENT UNBLOCK of a client that is not blocked');

    const orphan = errorOf(clients[0].xReadGroup('g', 'c', { key: 'bl', id: '>' }, { BLOCK: 4000 }));
    await waitBlocked(1);
    equal(await r.del('bl'), 1, 'DEL');
    const texts = [
      "NOGROUP No such key 'bl' or consumer group 'g' in XREADGROUP with GROUP option",
      'UNBLOCKED the stream key no longer exists', // before Redis 7.2
    ];
    const text = await orphan;
    holds(texts.includes(text), `a reader whose stream was deleted: ${text}`);
    for (const client of clients) client.destroy();
  },

  async pipeline() {
    // node-redis sends what is asked for in one turn of the event loop together.
    const calls = Array.from({ length: 200 }, (_, n) => r.xAdd('pl', '*', { n: `${n}` }));
    const [ids, length] = await Promise.all([Promise.all(calls), r.xLen('pl')]);
    equal(length, 200, 'XLEN at the end of the pipeline');
    const stored = messages(await r.xRange('pl', '-', '+'));
    equal(
      stored,
      ids.map((id, n) => [id, { n: `${n}` }]),
      'replies in order',
    );
    const [first, small, ...rest] = await Promise.allSettled([
      r.xAdd('pl', '*', { n: 'a' }),
      r.xAdd('pl', '1-1', { n: 'b' }),
      r.xLen('pl'),
      r.xAck('pl', 'nobody', '1-1'),
    ]);
    const text = 'ERR The ID specified in XADD is equal or smaller than the target stream top item';
    equal([small.reason.message, ...rest.map(({ value }) => value)], [text, 201, 0], 'an error among replies');
    equal(
      messages(await r.xRevRange('pl', '+', '-', { COUNT: 1 })),
      [[first.value, { n: 'a' }]],
      'the entry before the error',
    );
  },

  async transaction() {
    await r.xGroupCreate('tx', 'g', '0', { MKSTREAM: true });
    const first = await r.xAdd('tx', '*', { n: '0' });
    await r.xReadGroup('g', 'c', { key: 'tx', id: '>' });
    const [second, dead, acked, length, pending] = await r
      .multi()
      .xAdd('tx', '*', { n: '1' })
      .xAdd('tx-dead', '*', { origin: first })
      .xAck('tx', 'g', first)
      .xLen('tx')
      .xPending('tx', 'g')
      .exec();
    equal([acked, length, pending.pending], [1, 2, 0], 'replies of EXEC');
    equal(
      messages(await r.xRange('tx', '-', '+')),
      [
        [first, { n: '0' }],
        [second, { n: '1' }],
      ],
      'the stream after EXEC',
    );
    equal(messages(await r.xRange('tx-dead', '-', '+')), [[dead, { origin: first }]], 'the other stream after EXEC');
    const partly = await r
      .multi()
      .xAdd('tx', '*', { n: '2' })
      .xAdd('tx', '1-1', { n: 'too small' })
      .xAdd('tx', '*', { n: '3' })
      .exec()
      .catch((reason) => reason);
    equal(partly.errorIndexes, [1], 'an error within EXEC');
    const numbers = async () => (await r.xRange('tx', '-', '+')).map(({ message }) => message.n);
    equal(await numbers(), ['0', '1', '2', '3'], 'the others of that EXEC took place');
    const odd = r.multi().xAdd('tx', '*', { n: '4' }).addCommand(['XADD', 'tx', '*', 'odd']);
    const arity = "ERR wrong number of arguments for 'xadd' command";
    equal(await errorOf(odd.exec()), arity, 'a refused command refuses EXEC');
    equal(await r.xLen('tx'), 4, 'nothing of the refused EXEC took place');
    equal(await r.sendCommand(['MULTI']), 'OK', 'MULTI');
    equal(await r.sendCommand(['XADD', 'tx', '*', 'n', '7']), 'QUEUED', 'a command after MULTI');
    equal(await r.sendCommand(['DISCARD']), 'OK', 'DISCARD');
    equal(await errorOf(r.sendCommand(['EXEC'])), 'ERR EXEC without MULTI', 'EXEC after DISCARD');
    equal(await r.xLen('tx'), 4, 'nothing after DISCARD');
  },

  async watch() {
    const other = await connect(2);
    await r.xAdd('wa', '*', { n: '0' });
    await r.watch('wa');
    equal(await r.xLen('wa'), 1, 'XLEN after WATCH');
    equal((await r.multi().xAdd('wa', '*', { n: '1' }).exec()).length, 1, 'EXEC without a change');
    await r.watch(['wa', 'wa-other']);
    await other.xAdd('wa-other', '*', { n: '0' });
    const error = await r
      .multi()
      .xAdd('wa', '*', { n: '2' })
      .exec()
      .catch((reason) => reason);
    holds(error instanceof WatchError, `EXEC after a change: ${error}`);
    equal(await r.xLen('wa'), 2, 'nothing of it took place');
    await r.watch('wa');
    await other.xAdd('wa', '*', { n: '3' });
    equal(await r.unwatch(), 'OK', 'UNWATCH');
    equal((await r.multi().xAdd('wa', '*', { n: '4' }).exec()).length, 1, 'EXEC after UNWATCH');
    equal(await r.xLen('wa'), 4, 'at the end');
    other.destroy();
  },

  async errors() {
    await r.xAdd('er', '5-5', { a: 'b' });
    const rows = [
      ['XADD er 5-5 a b', 'ERR The ID specified in XADD is equal or smaller than the target stream top item'],
      ['XADD er 0-0 a b', 'ERR The ID specified in XADD must be greater than 0-0'],
      ['XADD er abc a b', 'ERR Invalid stream ID specified as stream command argument'],
      ['XADD er * a', "ERR wrong number of arguments for 'xadd' command"],
      ['XRANGE er - + COUNT x', 'ERR value is not an integer or out of range'],
      ['XREAD BLOCK -1 STREAMS er $', 'ERR timeout is negative'],
      [
        'XREADGROUP GROUP g c STREAMS er >',
        "NOGROUP No such key 'er' or consumer group 'g' in XREADGROUP with GROUP option",
      ],
      ['XPENDING er g', "NOGROUP No such key 'er' or consumer group 'g'"],
      [
        'XGROUP CREATE nothing g 0',
        'ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM ' +
          'option to create an empty stream automatically.',
      ],
      ['XGROUP NOSUCH er', "ERR unknown subcommand 'NOSUCH'. Try XGROUP HELP."],
      ['XTRIM er MAXLEN -1', 'ERR The MAXLEN argument must be >= 0.'],
      ['NOSUCHCOMMAND a b', "ERR unknown command 'NOSUCHCOMMAND', with args beginning with: 'a' 'b' "],
    ];
    for (const [command, text] of rows) equal(await errorOf(r.sendCommand(command.split(' '))), text, command);
    equal(await r.xLen('er'), 1, 'nothing was added');
  },

  async keys() {
    await r.flushAll();
    for (const name of ['orders:1', 'orders:2', 'events:1']) await r.xAdd(name, '*', { a: 'b' });
    equal(await r.dbSize(), 3, 'DBSIZE');
    equal(await r.exists(['orders:1', 'events:1', 'nothing', 'orders:1']), 3, 'EXISTS');
    equal([await r.type('orders:1'), await r.type('nothing')], ['stream', 'none'], 'TYPE');
    equal((await r.keys('orders:*')).sort(), ['orders:1', 'orders:2'], 'KEYS');
    equal((await r.keys('?????s:[13]')).sort(), ['events:1', 'orders:1'], 'KEYS with a class');
    async function scan(more) {
      const found = [];
      for await (const page of r.scanIterator(more)) found.push(...page);
      return found.sort();
    }
    equal(await scan({ MATCH: '*:1', COUNT: 1, TYPE: 'stream' }), ['events:1', 'orders:1'], 'SCAN');
    equal(await scan({ TYPE: 'string' }), [], 'SCAN of another type');
    equal(await r.del(['orders:1', 'nothing']), 1, 'DEL');
    equal(await r.unlink('orders:2'), 1, 'UNLINK');
    equal(await r.keys('*'), ['events:1'], 'what is left');
    equal(await r.flushDb(), 'OK', 'FLUSHDB');
    equal(await r.keys('*'), [], 'KEYS after FLUSHDB');
  },

  async 'ids-and-bytes'() {
    equal(await r.xAdd('ib', '7-*', { a: 'b' }), '7-0', 'a partial id');
    equal(await r.xAdd('ib', '7-*', { a: 'b' }), '7-1', 'the next of it');
    equal(await r.xAdd('ib', '8', { a: 'b' }), '8-0', 'an id without its second part');
    equal(await r.xAddNoMkStream('nothing', '*', { a: 'b' }), null, 'NOMKSTREAM');
    equal(await r.exists('nothing'), 0, 'no stream came of it');
    const raw = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    const fields = [
      Buffer.from([0xff, 0x00, 0x72]),
      bytes,
      Buffer.from('empty'),
      Buffer.alloc(0),
      Buffer.from('grüße🌊'),
      bytes,
    ];
    const id = await raw.sendCommand(['XADD', 'ib', '*', ...fields]);
    equal(await raw.sendCommand(['XRANGE', 'ib', id, id]), [[id, fields]], 'bytes come back');
    const large = Buffer.from(Array.from({ length: 300_000 }, (_, n) => n % 251));
    await raw.xAdd('ib', '*', { large });
    const [last] = await raw.xRevRange('ib', '+', '-', { COUNT: 1 });
    holds(Buffer.compare(last.message.large, large) === 0, 'a large value');
    await r.sendCommand(['XADD', 'ib-twice', '1-1', 'f', '1', 'f', '2', 'f', '1']);
    const twice = await r.sendCommand(['XRANGE', 'ib-twice', '-', '+']);
    equal(twice, [['1-1', ['f', '1', 'f', '2', 'f', '1']]], 'repeated fields keep their order');
  },

  async 'any-door'() {
    const doors = await Promise.all([0, 1, 2].map((turn) => connect(turn)));
    const door = (n) => doors[n % 3];
    const ids = [];
    for (let n = 0; n < 60; n += 1) {
      ids.push(await door(n).xAdd('ad', '*', { n: `${n}` }));
      const newest = messages(await door(n + 1).xRevRange('ad', '+', '-', { COUNT: 1 }));
      equal(newest, [[ids[n], { n: `${n}` }]], 'the newest entry at the next door');
      equal(await door(n + 2).xLen('ad'), n + 1, 'XLEN at the one after');
    }
    await doors[0].xGroupCreate('ad', 'g', '0');
    for (let n = 0; n < 6; n += 1) {
      const reply = byStream(await door(n).xReadGroup('g', 'c', { key: 'ad', id: '>' }, { COUNT: 1 }));
      equal(reply.ad, [[ids[n], { n: `${n}` }]], 'delivered in order, each once');
      equal((await door(n + 1).xPending('ad', 'g')).pending, 1, 'XPENDING at the next door');
      equal(await door(n + 2).xAck('ad', 'g', ids[n]), 1, 'XACK at the one after');
    }
    for (let n = 0; n < 3; n += 1) {
      const reader = await connect(n);
      const blocked = reader.xRead({ key: 'ad-wake', id: '$' }, { BLOCK: 4000 });
      await waitBlocked(1, door(n));
      const id = await door(n + 1).xAdd('ad-wake', '*', { n: `${n}` });
      equal(
        byStream(await blocked),
        { 'ad-wake': [[id, { n: `${n}` }]] },
        'a reader blocked at one door, woken by another',
      );
      reader.destroy();
    }
    equal(await doors[1].flushAll(), 'OK', 'FLUSHALL');
    equal(await Promise.all(doors.map((one) => one.dbSize())), [0, 0, 0], 'DBSIZE at every door');
    for (const one of doors) one.destroy();
  },
};

// What node-redis leaves to the program: it connects again by itself (the default reconnectStrategy) and keeps commands that
// were not yet sent, but a command without a reply is refused, and the program decides. These send it again.
const RETRYABLE_REPLIES = /^(TRYAGAIN|CLUSTERDOWN|LOADING|READONLY|MASTERDOWN|UNKNOWN|UNBLOCKED)/;
async function again(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (error instanceof ErrorReply && !RETRYABLE_REPLIES.test(error.message)) throw error;
      await sleep(50);
    }
  }
}

async function participant(turn) {
  const client = await connect(turn);
  const numbers = (stream) => stream.filter(Boolean).map(({ id, message }) => [id, Number(message.n)]);
  return {
    flush: () => client.flushAll(),
    create: (group) => client.xGroupCreate(STREAM, group, '0', { MKSTREAM: true }),
    append: (number) => again(() => client.xAdd(STREAM, '*', { n: `${number}` })),
    ack: (group, ids) => again(() => client.xAck(STREAM, group, ids)),
    async read(group, consumer, blockMs) {
      const reply = await again(() =>
        client.xReadGroup(group, consumer, { key: STREAM, id: '>' }, { COUNT: 10, BLOCK: blockMs }),
      );
      return reply ? numbers(reply[0].messages) : [];
    },
    claim: async (group, consumer) =>
      numbers((await again(() => client.xAutoClaim(STREAM, group, consumer, 1000, '0-0'))).messages),
    pending: async (group) => (await again(() => client.xPending(STREAM, group))).pending,
    everything: async () => numbers(await client.xRange(STREAM, '-', '+')),
    groups: async () =>
      Object.fromEntries((await client.xInfoGroups(STREAM)).map(({ name, pending, lag }) => [name, { pending, lag }])),
    close: () => client.close(),
  };
}

const { version } = createRequire(import.meta.url)('redis/package.json');
const report = new Report('node-redis', version, protocol, part);
if (part === 'failover') {
  await report.run(null, () => failover(report, faults, participant));
} else {
  await r.flushAll();
  for (const [name, work] of Object.entries(cases)) await report.run(name, work);
}
report.end();
