// How full the file systems behind volumes are. One whose server is away answers when that comes back, perhaps never, and
// until then holds a thread of the pool that everything else of this process reads files with. So a folder is asked once at
// a time, few folders at once, and nobody waits long: a volume that does not answer has no figures, and the others have.
import type { Clock } from "#base/clock.ts";
import { type FileSystemSize, fileSystemSize } from "#platform/folders.ts";

/** Of the four threads of the pool: with half of them lost for good, the other half still does the work. */
const atOnce = 2;
/** A disk that is busy answers within this. */
const answerMs = 2_000;

interface Question {
  /** Undefined: not there, or no answer in time. */
  readonly answer: Promise<FileSystemSize | undefined>;
  isLate: boolean;
}

export class VolumeSizes {
  readonly #clock: Clock;
  readonly #measure: (folder: string) => Promise<FileSystemSize>;
  /** By folder; as many as hold a thread. */
  readonly #asked = new Map<string, Question>();

  constructor(clock: Clock, measure: (folder: string) => Promise<FileSystemSize> = fileSystemSize) {
    this.#clock = clock;
    this.#measure = measure;
  }

  async of(folder: string): Promise<FileSystemSize | undefined> {
    while (!this.#asked.has(folder) && this.#asked.size >= atOnce) {
      const hopeful = [...this.#asked.values()].filter((question) => !question.isLate);
      if (hopeful.length === 0) return undefined;
      await Promise.race(hopeful.map((question) => question.answer));
    }
    return (this.#asked.get(folder) ?? this.#ask(folder)).answer;
  }

  #ask(folder: string): Question {
    let resolve: (size: FileSystemSize | undefined) => void = () => {};
    const answer = new Promise<FileSystemSize | undefined>((own) => {
      resolve = own;
    });
    const question: Question = { answer, isLate: false };
    const cancel = this.#clock.after(answerMs, () => {
      question.isLate = true;
      resolve(undefined);
    });
    const done = (size: FileSystemSize | undefined) => {
      cancel();
      this.#asked.delete(folder);
      resolve(size);
    };
    this.#asked.set(folder, question);
    this.#measure(folder).then(done, () => {
      // Not mounted yet, or whoever serves it has said that it is away.
      done(undefined);
    });
    return question;
  }
}
