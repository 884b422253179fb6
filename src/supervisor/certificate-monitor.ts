// How long the certificates of a server are good, as metrics, and as events where it is not long: mote renews its own in
// time, but authorities of the owner end when they end. Names, bounds and reasons are k3s's.
// Upstream counterpart: k3s pkg/certmonitor.
import { type Clock, pause } from "#base/clock.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import type { EventSink } from "#client/events.ts";
import { nodes } from "#model/resources.ts";
import { type CertificateFacts, certificateFacts } from "./certificate-check.ts";
import type { LivePki } from "./live-pki.ts";
import type { Pki } from "./pki.ts";

/** k3s looks every half hour; an event is repeated at most so often. */
const lookMs = 30 * 60_000;
const repeatMs = 24 * 3600_000;
const dayMs = 24 * 3600_000;
/** For an authority somebody has to come. */
const warnDays = { authority: 365, leaf: 120 } as const;

interface MonitorDeps {
  readonly clock: Clock;
  readonly events: EventSink;
  readonly metrics: Metrics;
}

/** Of what has a name of its own: an authority that stands in several files is told once. */
function factsOf(pki: Pki, nowMs: number): readonly CertificateFacts[] {
  const found = new Map<string, CertificateFacts>();
  for (const [name, part] of Object.entries(pki) as [string, object][]) {
    if (!("certificate" in part) || typeof part.certificate !== "string") continue;
    for (const one of certificateFacts(name, part.certificate, nowMs)) found.set(`${one.Subject} ${one.Issuer}`, one);
  }
  return [...found.values()];
}

/** What somebody must know of. */
export function expiryWarnings(
  pki: Pki,
  nowMs: number,
): readonly { readonly reason: string; readonly message: string }[] {
  const ending = factsOf(pki, nowMs).filter(({ Usages, ResidualTime }) => {
    const days = Usages.includes("CertSign") ? warnDays.authority : warnDays.leaf;
    return ResidualTime / 1e6 < days * dayMs;
  });
  const told = (isAuthority: boolean) =>
    ending
      .filter(({ Usages }) => Usages.includes("CertSign") === isAuthority)
      .map(({ Subject, ExpiryTime }) => `${Subject}: ${ExpiryTime}`)
      .join(", ");
  const [authorities, leaves] = [told(true), told(false)];
  return [
    ...(authorities === ""
      ? []
      : [
          {
            reason: "CACertificateExpirationWarning",
            message: `authorities end soon, replace them with mote certificate rotate-ca: ${authorities}`,
          },
        ]),
    ...(leaves === "" ? [] : [{ reason: "CertificateExpirationWarning", message: `certificates end soon: ${leaves}` }]),
  ];
}

export function createCertificateMonitor(nodeName: string, pki: LivePki, deps: MonitorDeps): Service {
  const { clock, events, metrics } = deps;
  const gauge = metrics.gauge("k3s_certificate_expiration_seconds", "Remaining lifetime of a certificate.");
  metrics.beforeRender(() => {
    for (const { Subject: subject, Usages, ResidualTime } of factsOf(pki.current, clock.now())) {
      gauge.set(ResidualTime / 1e9, { subject, usages: Usages.join(",") });
    }
  });
  return {
    name: "certificate-monitor",
    async run(signal, ready) {
      ready();
      let toldMs = Number.NEGATIVE_INFINITY;
      while (!signal.aborted) {
        await pause(clock, lookMs, signal);
        if (signal.aborted) return;
        const warnings = expiryWarnings(pki.current, clock.now());
        if (warnings.length === 0 || clock.monotonicMs() - toldMs < repeatMs) continue;
        toldMs = clock.monotonicMs();
        const object = { apiVersion: "v1", kind: "Node", metadata: { name: nodeName, uid: nodeName } };
        for (const warning of warnings) events.record({ resource: nodes, object, type: "Warning", ...warning });
      }
    },
  };
}
