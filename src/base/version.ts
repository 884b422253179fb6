// Which mote this is. The numbers come from build.config.ts as esbuild defines; unbundled code (tests) sees "dev".

declare const MOTE_VERSION: string | undefined;
declare const MOTE_COMMIT: string | undefined;

/** `v1.32.<patch>+mote<n>`: what nodes report and `/version` answers as gitVersion. */
export const moteVersion: string = typeof MOTE_VERSION === "string" ? MOTE_VERSION : "v1.32.3+mote0-dev";
/** The commit the bundle was made from, or "unknown". */
export const moteCommit: string = typeof MOTE_COMMIT === "string" ? MOTE_COMMIT : "unknown";
