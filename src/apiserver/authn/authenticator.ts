// How a request says who it is: client certificate or bearer token.
import type { UserInfo } from "./user.ts";

export interface Credentials {
  /** DER of the verified-to-be client certificate chain's leaf, if one was presented. */
  readonly clientCertificate?: Uint8Array | undefined;
  /** DER of what was sent along with it; asked for where the leaf alone is of nobody known. */
  readonly clientIntermediates?: (() => readonly Uint8Array[]) | undefined;
  /** The token of `Authorization: Bearer`, if there is one. */
  readonly bearerToken?: string | undefined;
}

export interface Authenticator {
  /**
   * The user; undefined when these credentials are not this authenticator's business.
   * Rejects with ApiError 401 when they are but are wrong.
   */
  authenticate(credentials: Credentials): Promise<UserInfo | undefined>;
}
