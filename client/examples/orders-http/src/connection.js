// One connection to whichever node answers. Redis has one address, and when it is gone the service waits; Millstream has
// several, and any of them will do, so on the loss of a connection, or when a node says "not now", the next one is asked.
// That is all a program needs to go on when a node dies.
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient, ErrorReply, WatchError } from 'redis';

// Replies that say "not now" or "not here". With UNKNOWN the command may have been carried out, as with a lost connection.
const ASK_ANOTHER = /^(TRYAGAIN|CLUSTERDOWN|LOADING|READONLY|MASTERDOWN|UNKNOWN|UNBLOCKED)/;

// Whether another node may do better.
export function askAnother(error) {
  if (error instanceof ErrorReply) return ASK_ANOTHER.test(error.message);
  // Everything else that node-redis rejects with is about the connection, except for mistakes in this program.
  return !(error instanceof WatchError || error instanceof TypeError || error instanceof RangeError);
}

export class Connection {
  #urls;
  #retryMs;
  #turn = 0;
  #client = null; // a promise
  #closed = false;

  constructor(urls, { retryMs = 15_000 } = {}) {
    this.#urls = urls;
    this.#retryMs = retryMs;
  }

  // Runs `work(client)`, again with another node if need be. So `work` may be carried out TWICE: it must do no harm then.
  async run(work) {
    const deadline = Date.now() + this.#retryMs;
    for (;;) {
      if (this.#closed) throw new Error('the connection was closed');
      const connecting = (this.#client ??= this.#connect());
      try {
        return await work(await connecting);
      } catch (error) {
        if (!askAnother(error)) throw error;
        this.#leave(connecting);
        if (this.#closed || deadline < Date.now()) throw error;
        await sleep(50);
      }
    }
  }

  async close() {
    this.#closed = true;
    const client = await this.#client?.catch(() => null);
    if (client?.isOpen) await client.close();
  }

  async #connect() {
    const client = createClient({
      url: this.#urls[this.#turn % this.#urls.length],
      disableOfflineQueue: true,
      // A node that says nothing at all is left too: nothing takes longer than a ping does.
      pingInterval: 3_000,
      socket: { reconnectStrategy: false, connectTimeout: 2_000, socketTimeout: 8_000 },
    });
    // The command that meets the error reports it.
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  // Calls share a connection, so several may find it broken; the first of them leaves it.
  #leave(connecting) {
    if (this.#client !== connecting) return;
    this.#client = null;
    this.#turn += 1;
    connecting.then(
      (client) => client.isOpen && client.destroy(),
      () => {},
    );
  }
}
