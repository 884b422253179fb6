// Who presents a client certificate, for a node whose API server is elsewhere: the same rules as in front of the API.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { UserInfo } from "./authn/user.ts";
import { createX509Authenticator } from "./authn/x509.ts";

/** Rejects with ApiError 401. `clientCa` is PEM. */
export function clientCertificates(
  clientCa: string,
  deps: { readonly clock: Clock; readonly log: Logger; readonly onVouched?: () => void },
): (certificate: Uint8Array | undefined, intermediates: () => readonly Uint8Array[]) => Promise<UserInfo | undefined> {
  const authenticator = createX509Authenticator({ clientCa }, deps);
  return (clientCertificate, clientIntermediates) =>
    authenticator.authenticate({ clientCertificate, clientIntermediates });
}
