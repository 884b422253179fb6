import { defineConfig } from "vitest/config";

/**
 * Their modules hold no state, and their tests leave the process as it was: no mocks, no environment, no timers of the system,
 * and whoever opens a socket closes it. So their files share a process; what one leaves behind, the next one meets.
 */
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
