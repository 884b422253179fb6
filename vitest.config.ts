import { defineConfig } from "vitest/config";

/** Folders without a machine, a socket or a clock of their own, and modules hold no state: their files share a process. */
const pure = ["base", "wire", "model", "scheduler", "controllers", "cli"].map((folder) => `src/${folder}/**/*.test.ts`);
// Real-machine tests (containerd, namespaces, kubectl) live in test/e2e and have a runner of their own.
const others = ["test/e2e/**", "node_modules/**"];

export default defineConfig({
  test: {
    globalSetup: ["test/harness/global-setup.ts"],
    // What is well takes a second or two; machines that have other things to do take ten times that.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
    pool: "forks",
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: "rest",
          include: ["src/**/*.test.ts", "scripts/**/*.test.ts", "test/**/*.test.ts"],
          exclude: [...others, ...pure],
        },
      },
      // Loading the same modules for each file anew takes as long as the tests.
      { extends: true, test: { name: "pure", include: pure, exclude: others, isolate: false } },
    ],
  },
});
