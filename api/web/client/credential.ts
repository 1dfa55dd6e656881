// The key that requests carry. When the server refuses it, whoever made the client is asked for another, once for all
// that were refused meanwhile; the answer may take as long as a person takes to sign in.

export type GiveCredential = (refused: string | null) => string | null | Promise<string | null>;

export class Credential {
  readonly #give: GiveCredential;
  #key: string | null = null;
  #asking: Promise<string | null> | null = null;

  constructor(given: string | GiveCredential) {
    this.#give = typeof given === "string" ? () => given : given;
  }

  // The key, or null when there is none to be had.
  async key(): Promise<string | null> {
    return this.#key ?? this.#ask(null);
  }

  // The key to use in place of this one. It may be the same: some refusals pass.
  async instead(refused: string | null): Promise<string | null> {
    return this.#key !== null && this.#key !== refused ? this.#key : this.#ask(refused);
  }

  #ask(refused: string | null): Promise<string | null> {
    this.#asking ??= (async () => {
      try {
        this.#key = await this.#give(refused);
        return this.#key;
      } finally {
        this.#asking = null;
      }
    })();
    return this.#asking;
  }
}
