// Every case of cases.txt for clients that hand commands and replies on as they are on the wire: ioredis and node-redis 3.
// `connect(turn)` gives a client of the turn-th door with
//   call(name, ...words) -> reply         batch(commands) -> [reply or Error], as one pipeline
//   multi(commands) -> [reply or Error], or null after WATCH; rejects if EXEC was refused
//   bytes(name, ...words) -> reply whose texts are Buffers          close()
import { equal, errorOf, holds, order, pairs, pick, sleep, within } from './support.mjs';

const byStream = (reply) => Object.fromEntries(reply ?? []);
const words = (text) => text.split(' ');

export async function plainCases(connect) {
  const r = await connect(0);
  const call = r.call;
  await call('flushall');
  const ids = async (...range) => (await call('xrange', ...range)).map(([id]) => id);
  const entries = (found, numbers) => found.map((id, at) => [id, ['n', `${numbers ? numbers[at] : at}`]]);

  async function append(key, count) {
    const made = [];
    for (let n = 0; n < count; n += 1) made.push(await call('xadd', key, '*', 'n', n));
    return made;
  }

  async function waitBlocked(count, door = r) {
    await within(5000, `${count} clients are blocked`, async () =>
      (await door.call('info', 'clients')).includes(`blocked_clients:${count}\r\n`),
    );
  }

  return {
    async 'order-tracker'() {
      await call('xadd', 'left-over', '*', 'a', 'b');
      equal(await call('flushall'), 'OK', 'FLUSHALL');
      equal(await call('dbsize'), 0, 'keys after FLUSHALL');
      const made = [];
      for (let n = 0; n < 5; n += 1) made.push(await call('xadd', 'orders:stream', '*', 'data', order(n)));
      equal(await call('xlen', 'orders:stream'), 5, 'XLEN');
      const history = await call('xrange', 'orders:stream', '-', '+');
      equal(
        history,
        made.map((id, n) => [id, ['data', order(n)]]),
        'the history',
      );
      const newest = await call('xrevrange', 'orders:stream', '+', '-', 'COUNT', 2);
      equal(
        newest.map(([, [, data]]) => JSON.parse(data).orderId),
        ['order-4', 'order-3'],
        'newest first',
      );
      for (const [n, status] of [
        [1, 'paid'],
        [3, 'paid'],
        [1, 'shipped'],
      ]) {
        await call('xadd', 'orders:stream', '*', 'data', order(n, status));
      }
      const latest = {};
      for (const [, [, data]] of await call('xrange', 'orders:stream', '-', '+')) {
        const { orderId, status } = JSON.parse(data);
        latest[orderId] = status;
      }
      const statuses = ['created', 'shipped', 'created', 'paid', 'created'];
      equal(latest, Object.fromEntries(statuses.map((s, n) => [`order-${n}`, s])), 'the latest status of each order');
    },

    async 'producer-consumer'() {
      async function produce() {
        const producer = await connect(1);
        const made = [];
        for (let n = 0; n < 50; n += 1) made.push(await producer.call('xadd', 'pc', '*', 'n', n));
        await producer.close();
        return made;
      }
      const produced = produce();
      const seen = [];
      for (let last = '0-0'; seen.length < 50; last = seen.at(-1)[0]) {
        const reply = byStream(await call('xread', ...words('COUNT 10 BLOCK 2000 STREAMS pc'), last));
        equal(Object.keys(reply), ['pc'], 'entries before the time ran out');
        seen.push(...reply.pc);
      }
      equal(seen, entries(await produced), 'what the consumer saw');
    },

    async 'group-acks'() {
      equal(await call('xgroup', ...words('CREATE ga workers 0 MKSTREAM')), 'OK', 'XGROUP CREATE MKSTREAM');
      const busy = await errorOf(call('xgroup', ...words('CREATE ga workers 0')));
      equal(busy, 'BUSYGROUP Consumer Group name already exists', 'a second XGROUP CREATE');
      const made = await append('ga', 20);
      const got = { alice: [], bob: [] };
      const read = (consumer) => call('xreadgroup', ...words(`GROUP workers ${consumer} COUNT 5 STREAMS ga >`));
      for (const consumer of ['alice', 'bob', 'bob', 'alice']) {
        got[consumer].push(...byStream(await read(consumer)).ga.map(([id]) => id));
      }
      equal(got, { alice: [...made.slice(0, 5), ...made.slice(15)], bob: made.slice(5, 15) }, 'who got what');
      equal(await read('alice'), null, 'nothing is left');
      const pending = () => call('xpending', 'ga', 'workers');
      equal(
        await pending(),
        [
          20,
          made[0],
          made[19],
          [
            ['alice', '10'],
            ['bob', '10'],
          ],
        ],
        'XPENDING',
      );
      equal(await call('xack', 'ga', 'workers', ...got.alice), 10, 'XACK');
      equal(await call('xack', 'ga', 'workers', got.alice[0], got.bob[0]), 1, 'XACK, one of them again');
      equal((await pending())[3], [['bob', '9']], 'XPENDING after XACK');
      equal(await call('xack', 'ga', 'workers', ...got.bob), 9, 'XACK of the rest');
      equal(await pending(), [0, null, null, null], 'XPENDING at the end');
    },

    async 'pending-recovery'() {
      const made = await append('pr', 6);
      await call('xgroup', ...words('CREATE pr g 0'));
      await call('xreadgroup', ...words('GROUP g gone STREAMS pr >'));
      const rows = await call('xpending', ...words('pr g - + 10'));
      equal(
        rows.map(([id, who, , count]) => [id, who, count]),
        made.map((id) => [id, 'gone', 1]),
        'rows of XPENDING',
      );
      holds(
        rows.every(([, , idle]) => 0 <= idle && idle < 60_000),
        'idle times',
      );
      equal(await call('xpending', ...words('pr g - + 10 nobody')), [], 'XPENDING of nobody');
      equal(await call('xpending', ...words('pr g IDLE 60000 - + 10')), [], 'XPENDING IDLE');
      equal(await call('xclaim', ...words('pr g heir 60000'), made[0]), [], 'XCLAIM of an entry too young');
      equal(await call('xclaim', ...words('pr g heir 0'), made[0]), entries([made[0]]), 'XCLAIM');
      const [[, who, , count]] = await call('xpending', 'pr', 'g', made[0], made[0], 1);
      equal([who, count], ['heir', 2], 'the claimed row');
      equal(await call('xdel', 'pr', made[3]), 1, 'XDEL');
      const claim = (...more) => call('xautoclaim', 'pr', 'g', ...more);
      const first = await claim('heir', 0, '0-0', 'COUNT', 2);
      equal(first, [made[2], entries(made.slice(0, 2)), []], 'XAUTOCLAIM, first page');
      const rest = await claim('heir', 0, first[0], 'COUNT', 10);
      const left = entries([made[2], made[4], made[5]], [2, 4, 5]);
      equal(rest, ['0-0', left, [made[3]]], 'XAUTOCLAIM, the rest');
      equal(await claim('heir', 60_000, '0-0'), ['0-0', [], []], 'XAUTOCLAIM of entries too young');
      equal(await claim('third', 0, '0-0', 'COUNT', 1, 'JUSTID'), [made[1], [made[0]], []], 'XAUTOCLAIM JUSTID');
      const counts = (await call('xpending', ...words('pr g - + 10'))).map(([id, , , times]) => [id, times]);
      equal(
        counts,
        [0, 1, 2, 4, 5].map((n) => [made[n], n === 0 ? 3 : 2]),
        'times delivered',
      );
      equal(await call('xgroup', ...words('DELCONSUMER pr g heir')), 4, 'XGROUP DELCONSUMER');
      const none = await call('xgroup', ...words('DELCONSUMER pr g gone'));
      equal(none, 0, 'XGROUP DELCONSUMER without pending entries');
      equal((await call('xpending', 'pr', 'g'))[0], 1, 'what is pending at the end');
    },

    async 'trim-length'() {
      const made = [];
      for (let n = 0; n < 15; n += 1) made.push(await call('xadd', ...words(`tl MAXLEN = 10 * n ${n}`)));
      equal(await ids('tl', '-', '+'), made.slice(5), 'the newest ten');
      equal(await call('xtrim', ...words('tl MAXLEN 4')), 6, 'XTRIM MAXLEN');
      equal(await ids('tl', '-', '+'), made.slice(11), 'the newest four');
      equal(await call('xtrim', ...words('tl MAXLEN = 4')), 0, 'XTRIM MAXLEN again');
      await r.batch(Array.from({ length: 500 }, (_, n) => ['xadd', ...words(`tl MAXLEN ~ 1000 * n ${n}`)]));
      equal(await call('xlen', 'tl'), 504, 'XADD MAXLEN ~ 1000 leaves what is below it');
      const removed = await call('xtrim', ...words('tl MAXLEN ~ 100'));
      const left = await call('xlen', 'tl');
      holds(
        100 <= left && removed + left === 504 && 0 < removed,
        `XTRIM MAXLEN ~ 100 removed ${removed}, left ${left}`,
      );
      equal(await call('xtrim', ...words('tl MAXLEN 0')), left, 'XTRIM MAXLEN 0');
      equal([await call('xlen', 'tl'), await call('exists', 'tl')], [0, 1], 'an empty stream stays');
    },

    async 'trim-time'() {
      for (let ms = 1000; ms < 2000; ms += 100) await call('xadd', 'tt', `${ms}-1`, 'n', ms);
      equal(await call('xtrim', ...words('tt MINID 1500')), 5, 'XTRIM MINID');
      const first = await call('xrange', ...words('tt - + COUNT 1'));
      equal(first, [['1500-1', ['n', '1500']]], 'the first that is left');
      equal(await call('xtrim', ...words('tt MINID = 1500-1')), 0, 'XTRIM MINID at the first');
      await call('xadd', ...words('tt MINID 1800-2 2000-0 n 2000'));
      equal(await ids('tt', '-', '+'), ['1900-1', '2000-0'], 'XADD MINID');
      const now = Number((await call('xadd', ...words('tt-now * a b'))).split('-')[0]);
      equal(await call('xtrim', 'tt-now', 'MINID', now - 3_600_000), 0, 'older than an hour');
      equal(await call('xtrim', 'tt-now', 'MINID', now + 3_600_000), 1, 'older than in an hour');
    },

    async 'history-replay'() {
      for (let n = 0; n < 25; n += 1) await call('xadd', 'hr', `${1000 + Math.floor(n / 5)}-${(n % 5) + 1}`, 'n', n);
      const pages = [];
      for (let start = '-'; ;) {
        const page = await call('xrange', 'hr', start, '+', 'COUNT', 7);
        if (page.length === 0) break;
        pages.push(page.map(([, [, n]]) => Number(n)));
        start = `(${page.at(-1)[0]}`;
      }
      const all = Array.from({ length: 25 }, (_, n) => n);
      equal(
        pages,
        [0, 7, 14, 21].map((n) => all.slice(n, n + 7)),
        'pages',
      );
      equal(
        await ids('hr', '1002', '1002'),
        [1, 2, 3, 4, 5].map((s) => `1002-${s}`),
        'one ms',
      );
      equal(await ids('hr', '1003-2', '(1003-4'), ['1003-2', '1003-3'], 'a half-open range');
      const back = await call('xrevrange', ...words('hr 1001 - COUNT 2'));
      equal(back, entries(['1001-5', '1001-4'], [9, 8]), 'XREVRANGE');
      equal(await ids('hr', '1004-4', '1004-3'), [], 'an empty range');
      equal(await ids('no-such-stream', '-', '+'), [], 'XRANGE of a missing stream');
      await call('xgroup', ...words('CREATE hr replay 1004-2'));
      const read = async (of, more = '') =>
        byStream(await call('xreadgroup', ...words(`GROUP replay c ${more}STREAMS hr ${of}`)));
      const expected = { hr: entries(['1004-3', '1004-4', '1004-5'], [22, 23, 24]) };
      equal(await read('>'), expected, "after the group's position");
      equal(await read('0'), expected, "the consumer's own history");
      equal(await call('xack', ...words('hr replay 1004-3')), 1, 'XACK');
      equal(await read('1004-4'), { hr: [['1004-5', ['n', '24']]] }, 'its history after an id');
      await call('xack', ...words('hr replay 1004-4 1004-5'));
      equal(await read('0'), { hr: [] }, 'an empty history');
      equal(await call('xgroup', ...words('SETID hr replay 0')), 'OK', 'XGROUP SETID');
      equal((await read('>', 'NOACK ')).hr.length, 25, 'everything again, NOACK');
      equal((await call('xpending', 'hr', 'replay'))[0], 0, 'nothing pending after NOACK');
    },

    async xinfo() {
      for (let n = 1; n <= 5; n += 1) await call('xadd', 'xi', `${n}-0`, 'n', n);
      await call('xgroup', ...words('CREATE xi g1 0'));
      await call('xgroup', ...words('CREATE xi g2 $'));
      await call('xreadgroup', ...words('GROUP g1 c COUNT 1 STREAMS xi >'));
      const groups = async () => (await call('xinfo', 'GROUPS', 'xi')).map(pairs);
      const behind = { name: 'g1', 'entries-read': 1, lag: 4 };
      equal(pick((await groups())[0], behind), behind, 'a group that is four entries behind');
      await call('xdel', 'xi', '2-0');
      equal(await call('xgroup', ...words('CREATECONSUMER xi g1 idle')), 1, 'XGROUP CREATECONSUMER');
      const expected = {
        length: 4,
        'last-generated-id': '5-0',
        'max-deleted-entry-id': '2-0',
        'entries-added': 5,
        'recorded-first-entry-id': '1-0',
        groups: 2,
        'first-entry': ['1-0', ['n', '1']],
        'last-entry': ['5-0', ['n', '5']],
      };
      const info = pairs(await call('xinfo', 'STREAM', 'xi'));
      equal(pick(info, expected), expected, 'XINFO STREAM');
      holds('radix-tree-keys' in info && 'radix-tree-nodes' in info, "the radix tree's fields");
      // What is deleted behind the position makes the lag unknown.
      const g1 = { name: 'g1', consumers: 2, pending: 1, 'last-delivered-id': '1-0', 'entries-read': 1, lag: null };
      const g2 = { name: 'g2', consumers: 0, pending: 0, 'last-delivered-id': '5-0', lag: 0 };
      const both = await groups();
      equal([both.length, pick(both[0], g1), pick(both[1], g2)], [2, g1, g2], 'XINFO GROUPS');
      const consumers = (await call('xinfo', 'CONSUMERS', 'xi', 'g1')).map(pairs);
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
      const full = pairs(await call('xinfo', 'STREAM', 'xi', 'FULL'));
      equal(
        full.entries,
        [1, 3, 4, 5].map((n) => [`${n}-0`, ['n', `${n}`]]),
        'XINFO STREAM FULL, entries',
      );
      const group = pairs(full.groups[0]);
      equal([group.name, group['pel-count'], group['last-delivered-id']], ['g1', 1, '1-0'], 'a group in FULL');
      const [[id, consumer, delivered, count]] = group.pending;
      equal([id, consumer, count], ['1-0', 'c', 1], 'a pending entry in FULL');
      holds(Math.abs(delivered - Date.now()) < 60_000, 'its delivery time');
      const of = group.consumers.map(pairs).map((one) => [one.name, one['pel-count']]);
      equal(
        of,
        [
          ['c', 1],
          ['idle', 0],
        ],
        'consumers in FULL',
      );
      equal(await errorOf(call('xinfo', 'STREAM', 'nothing')), 'ERR no such key', 'XINFO STREAM of a missing stream');
      const nogroup = "NOGROUP No such consumer group 'nobody' for key name 'xi'";
      equal(await errorOf(call('xinfo', 'CONSUMERS', 'xi', 'nobody')), nogroup, 'XINFO CONSUMERS of a missing group');
    },

    async blocking() {
      const began = performance.now();
      equal(await call('xread', ...words('BLOCK 300 STREAMS bl $')), null, 'XREAD BLOCK without an entry');
      const took = performance.now() - began;
      holds(290 <= took && took < 2000, `BLOCK 300 took ${took} ms`);
      await call('xgroup', ...words('CREATE bl g $ MKSTREAM'));
      const clients = await Promise.all([0, 1].map(() => connect(0)));
      const waits = [];
      for (const [n, client] of clients.entries()) {
        waits.push(client.call('xreadgroup', ...words(`GROUP g c${n} COUNT 1 BLOCK 4000 STREAMS bl >`)));
        await waitBlocked(n + 1);
      }
      const made = await append('bl', 2);
      for (const [n, wait] of waits.entries()) {
        equal(byStream(await wait), { bl: [[made[n], ['n', `${n}`]]] }, `blocked reader ${n}`);
      }
      await waitBlocked(0);

      const [client] = clients;
      const forever = client.call('xread', ...words('BLOCK 0 STREAMS bl bl-other $ $'));
      await waitBlocked(1);
      const [id] = await append('bl-other', 1);
      equal(byStream(await forever), { 'bl-other': entries([id]) }, 'XREAD BLOCK 0 of two streams');

      const clientId = await client.call('client', 'ID');
      const stopped = client.call('xread', ...words('BLOCK 0 STREAMS bl $'));
      await waitBlocked(1);
      equal(await call('client', 'UNBLOCK', clientId), 1, 'CLIENT UNBLOCK');
      equal(await stopped, null, 'a reader that CLIENT UNBLOCK stopped');
      equal(await call('client', 'UNBLOCK', clientId), 0, 'CLIENT UNBLOCK of a client that is not blocked');

      const failing = errorOf(client.call('xread', ...words('BLOCK 0 STREAMS bl $')));
      await waitBlocked(1);
      equal(await call('client', 'UNBLOCK', clientId, 'ERROR'), 1, 'CLIENT UNBLOCK ERROR');
      equal(await failing, 'UNBLOCKED client unblocked via CLIENT UNBLOCK', 'a reader that it stopped with an error');

      const orphan = errorOf(client.call('xreadgroup', ...words('GROUP g c BLOCK 4000 STREAMS bl >')));
      await waitBlocked(1);
      equal(await call('del', 'bl'), 1, 'DEL');
      const texts = [
        "NOGROUP No such key 'bl' or consumer group 'g' in XREADGROUP with GROUP option",
        'UNBLOCKED the stream key no longer exists', // before Redis 7.2
      ];
      const text = await orphan;
      holds(texts.includes(text), `a reader whose stream was deleted: ${text}`);
      for (const one of clients) await one.close();
    },

    async pipeline() {
      const commands = Array.from({ length: 200 }, (_, n) => ['xadd', 'pl', '*', 'n', n]);
      const made = await r.batch([...commands, ['xlen', 'pl']]);
      equal(made.pop(), 200, 'XLEN at the end of the pipeline');
      equal(await call('xrange', 'pl', '-', '+'), entries(made), 'replies in order');
      const replies = await r.batch(['xadd pl * n a', 'xadd pl 1-1 n b', 'xlen pl', 'xack pl nobody 1-1'].map(words));
      const [first, small, ...rest] = replies;
      const text = 'ERR The ID specified in XADD is equal or smaller than the target stream top item';
      equal([small.message, ...rest], [text, 201, 0], 'an error among replies');
      const last = await call('xrevrange', ...words('pl + - COUNT 1'));
      equal(last, entries([first], ['a']), 'the entry before the error');
    },

    async transaction() {
      await call('xgroup', ...words('CREATE tx g 0 MKSTREAM'));
      const [first] = await append('tx', 1);
      await call('xreadgroup', ...words('GROUP g c STREAMS tx >'));
      const commands = [`xadd tx * n 1`, `xadd tx-dead * n ${first}`, `xack tx g ${first}`, 'xlen tx', 'xpending tx g'];
      const [second, dead, acked, length, pending] = await r.multi(commands.map(words));
      equal([acked, length, pending], [1, 2, [0, null, null, null]], 'replies of EXEC');
      equal(await call('xrange', 'tx', '-', '+'), entries([first, second]), 'the stream after EXEC');
      equal(await call('xrange', 'tx-dead', '-', '+'), entries([dead], [first]), 'the other stream after EXEC');
      const partly = await r.multi(['xadd tx * n 2', 'xadd tx 1-1 n small', 'xadd tx * n 3'].map(words));
      equal(
        partly.map((reply) => reply instanceof Error),
        [false, true, false],
        'an error within EXEC',
      );
      const numbers = async () => (await call('xrange', 'tx', '-', '+')).map(([, [, n]]) => n);
      equal(await numbers(), ['0', '1', '2', '3'], 'the others of that EXEC took place');
      const refused = await errorOf(r.multi(['xadd tx * n 4', 'xadd tx * odd', 'xadd tx * n 5'].map(words)));
      const abort = 'EXECABORT Transaction discarded because of previous errors.';
      equal(refused.replace(/^Error: /, ''), abort, 'a refused command refuses EXEC');
      equal(await call('xlen', 'tx'), 4, 'nothing of the refused EXEC took place');
    },

    async watch() {
      const other = await connect(2);
      await append('wa', 1);
      equal(await call('watch', 'wa'), 'OK', 'WATCH');
      equal(await call('xlen', 'wa'), 1, 'XLEN after WATCH');
      equal((await r.multi([words('xadd wa * n 1')])).length, 1, 'EXEC without a change');
      await call('watch', 'wa', 'wa-other');
      await other.call('xadd', ...words('wa-other * n 0'));
      equal(await r.multi([words('xadd wa * n 2')]), null, 'EXEC after a change');
      equal(await call('xlen', 'wa'), 2, 'nothing of it took place');
      await call('watch', 'wa');
      await other.call('xadd', ...words('wa * n 3'));
      equal(await call('unwatch'), 'OK', 'UNWATCH');
      equal((await r.multi([words('xadd wa * n 4')])).length, 1, 'EXEC after UNWATCH');
      equal(await call('xlen', 'wa'), 4, 'at the end');
      await other.close();
    },

    async errors() {
      await call('xadd', ...words('er 5-5 a b'));
      const rows = [
        ['xadd er 5-5 a b', 'ERR The ID specified in XADD is equal or smaller than the target stream top item'],
        ['xadd er 0-0 a b', 'ERR The ID specified in XADD must be greater than 0-0'],
        ['xadd er abc a b', 'ERR Invalid stream ID specified as stream command argument'],
        ['xadd er * a', "ERR wrong number of arguments for 'xadd' command"],
        ['xrange er - + COUNT x', 'ERR value is not an integer or out of range'],
        ['xread BLOCK -1 STREAMS er $', 'ERR timeout is negative'],
        [
          'xreadgroup GROUP g c STREAMS er >',
          "NOGROUP No such key 'er' or consumer group 'g' in XREADGROUP with GROUP option",
        ],
        ['xpending er g', "NOGROUP No such key 'er' or consumer group 'g'"],
        [
          'xgroup CREATE nothing g 0',
          'ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM ' +
            'option to create an empty stream automatically.',
        ],
        ['xgroup NOSUCH er', "ERR unknown subcommand 'NOSUCH'. Try XGROUP HELP."],
        ['xtrim er MAXLEN -1', 'ERR The MAXLEN argument must be >= 0.'],
        ['nosuchcommand a b', "ERR unknown command 'nosuchcommand', with args beginning with: 'a' 'b' "],
      ];
      for (const [command, text] of rows) equal(await errorOf(call(...words(command))), text, command);
      equal(await call('xlen', 'er'), 1, 'nothing was added');
    },

    async keys() {
      await call('flushall');
      for (const name of ['orders:1', 'orders:2', 'events:1']) await append(name, 1);
      equal(await call('dbsize'), 3, 'DBSIZE');
      equal(await call('exists', ...words('orders:1 events:1 nothing orders:1')), 3, 'EXISTS');
      equal([await call('type', 'orders:1'), await call('type', 'nothing')], ['stream', 'none'], 'TYPE');
      equal((await call('keys', 'orders:*')).sort(), ['orders:1', 'orders:2'], 'KEYS');
      equal((await call('keys', '?????s:[13]')).sort(), ['events:1', 'orders:1'], 'KEYS with a class');
      async function scan(...more) {
        const found = [];
        let cursor = '0';
        do {
          const [next, page] = await call('scan', cursor, ...more);
          found.push(...page);
          cursor = next;
        } while (cursor !== '0');
        return found.sort();
      }
      equal(await scan(...words('MATCH *:1 COUNT 1 TYPE stream')), ['events:1', 'orders:1'], 'SCAN');
      equal(await scan('TYPE', 'string'), [], 'SCAN of another type');
      equal(await call('del', 'orders:1', 'nothing'), 1, 'DEL');
      equal(await call('unlink', 'orders:2'), 1, 'UNLINK');
      equal(await call('keys', '*'), ['events:1'], 'what is left');
      equal(await call('flushdb'), 'OK', 'FLUSHDB');
      equal(await call('keys', '*'), [], 'KEYS after FLUSHDB');
    },

    async 'ids-and-bytes'() {
      equal(await call('xadd', ...words('ib 7-* a b')), '7-0', 'a partial id');
      equal(await call('xadd', ...words('ib 7-* a b')), '7-1', 'the next of it');
      equal(await call('xadd', ...words('ib 8 a b')), '8-0', 'an id without its second part');
      equal(await call('xadd', ...words('nothing NOMKSTREAM * a b')), null, 'NOMKSTREAM');
      equal(await call('exists', 'nothing'), 0, 'no stream came of it');
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
      const names = [Buffer.from([0xff, 0x00, 0x72]), Buffer.from('empty'), Buffer.from('grüße🌊')];
      const fields = [names[0], bytes, names[1], Buffer.alloc(0), names[2], bytes];
      const id = await r.bytes('xadd', 'ib', '*', ...fields);
      equal(await r.bytes('xrange', 'ib', id, id), [[id, fields]], 'bytes come back');
      const large = Buffer.from(Array.from({ length: 300_000 }, (_, n) => n % 251));
      await r.bytes('xadd', 'ib', '*', 'large', large);
      const [[, [, value]]] = await r.bytes('xrevrange', ...words('ib + - COUNT 1'));
      holds(Buffer.compare(value, large) === 0, 'a large value');
      await call('xadd', ...words('ib-twice 1-1 f 1 f 2 f 1'));
      const twice = await call('xrange', 'ib-twice', '-', '+');
      equal(twice, [['1-1', ['f', '1', 'f', '2', 'f', '1']]], 'repeated fields keep their order');
    },

    async 'any-door'() {
      const doors = await Promise.all([0, 1, 2].map((turn) => connect(turn)));
      const at = (n, command) => doors[n % 3].call(...words(command));
      const made = [];
      for (let n = 0; n < 60; n += 1) {
        made.push(await at(n, `xadd ad * n ${n}`));
        const newest = await at(n + 1, 'xrevrange ad + - COUNT 1');
        equal(newest, entries([made[n]], [n]), 'the newest entry at the next door');
        equal(await at(n + 2, 'xlen ad'), n + 1, 'XLEN at the one after');
      }
      await at(0, 'xgroup CREATE ad g 0');
      for (let n = 0; n < 6; n += 1) {
        const reply = byStream(await at(n, 'xreadgroup GROUP g c COUNT 1 STREAMS ad >'));
        equal(reply.ad, entries([made[n]], [n]), 'delivered in order, each once');
        equal((await at(n + 1, 'xpending ad g'))[0], 1, 'XPENDING at the next door');
        equal(await at(n + 2, `xack ad g ${made[n]}`), 1, 'XACK at the one after');
      }
      for (let n = 0; n < 3; n += 1) {
        const reader = await connect(n);
        const blocked = reader.call('xread', ...words('BLOCK 4000 STREAMS ad-wake $'));
        await waitBlocked(1, doors[n]);
        const id = await at(n + 1, `xadd ad-wake * n ${n}`);
        equal(
          byStream(await blocked),
          { 'ad-wake': entries([id], [n]) },
          'a reader blocked at one door, woken by another',
        );
        await reader.close();
      }
      equal(await at(1, 'flushall'), 'OK', 'FLUSHALL');
      equal(await Promise.all([0, 1, 2].map((n) => at(n, 'dbsize'))), [0, 0, 0], 'DBSIZE at every door');
      for (const door of doors) await door.close();
    },
  };
}

// The same clients as participants of `failover` in support.mjs; `again(call)` is what the program itself does about a
// command that failed.
export function participant(client, stream, again) {
  const numbers = (list) => list.filter((entry) => entry?.[1]).map(([id, [, n]]) => [id, Number(n)]);
  const call = (...command) => again(() => client.call(...command));
  return {
    flush: () => call('flushall'),
    create: (group) => call('xgroup', 'CREATE', stream, group, '0', 'MKSTREAM'),
    append: (number) => call('xadd', stream, '*', 'n', number),
    ack: (group, ids) => call('xack', stream, group, ...ids),
    async read(group, consumer, blockMs) {
      const command = `GROUP ${group} ${consumer} COUNT 10 BLOCK ${blockMs} STREAMS ${stream} >`;
      return numbers(byStream(await call('xreadgroup', ...words(command)))[stream] ?? []);
    },
    claim: async (group, consumer) =>
      numbers((await call('xautoclaim', stream, group, consumer, 1000, '0-0', 'COUNT', 100))[1]),
    pending: async (group) => (await call('xpending', stream, group))[0],
    everything: async () => numbers(await call('xrange', stream, '-', '+')),
    async groups() {
      const found = (await call('xinfo', 'GROUPS', stream)).map(pairs);
      return Object.fromEntries(found.map(({ name, pending, lag }) => [name, { pending, lag }]));
    },
    close: () => client.close(),
  };
}

export function patiently(retryable) {
  return async (call) => {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (!retryable(error)) throw error;
        await sleep(50);
      }
    }
  };
}
