// Objects that the scenarios begin with.
import type { Deployment } from "#model/gen/apps-v1.ts";
import type { Job, JobSpec } from "#model/gen/batch-v1.ts";
import type { Service } from "#model/gen/core-v1.ts";

export interface WebOptions {
  readonly replicas: number;
  readonly maxSurge?: number;
  readonly maxUnavailable?: number;
  readonly strategy?: "RollingUpdate" | "Recreate";
  readonly progressDeadlineSeconds?: number;
  readonly revisionHistoryLimit?: number;
  readonly namespace?: string;
}

export function webDeployment(options: WebOptions): Deployment {
  const { maxSurge, maxUnavailable, progressDeadlineSeconds, revisionHistoryLimit } = options;
  const isRecreate = options.strategy === "Recreate";
  const hasBounds = maxSurge !== undefined && maxUnavailable !== undefined;
  return {
    metadata: { name: "web", namespace: options.namespace ?? "default" },
    spec: {
      replicas: options.replicas,
      selector: { matchLabels: { app: "web" } },
      ...(isRecreate ? { strategy: { type: "Recreate" } } : {}),
      ...(hasBounds ? { strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge, maxUnavailable } } } : {}),
      ...(progressDeadlineSeconds === undefined ? {} : { progressDeadlineSeconds }),
      ...(revisionHistoryLimit === undefined ? {} : { revisionHistoryLimit }),
      template: {
        metadata: { labels: { app: "web" } },
        spec: {
          containers: [{ name: "web", image: "web:1", ports: [{ name: "http", containerPort: 8080 }] }],
        },
      },
    },
  } as Deployment;
}

export function webService(options: { readonly headless?: boolean } = {}): Service {
  return {
    metadata: { name: "web", namespace: "default" },
    spec: {
      selector: { app: "web" },
      ports: [{ name: "http", port: 80, targetPort: "http" }],
      ...(options.headless ? { clusterIP: "None" } : {}),
    },
  } as Service;
}

export function batchJob(spec: Partial<JobSpec> = {}): Job {
  return {
    metadata: { name: "work", namespace: "default" },
    spec: {
      template: {
        spec: { restartPolicy: "Never", containers: [{ name: "work", image: "work:1" }] },
      },
      ...spec,
    },
  } as Job;
}
