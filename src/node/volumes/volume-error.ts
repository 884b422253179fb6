/** A volume that cannot be made now; the text goes into the FailedMount event. */
export class VolumeError extends Error {
  override readonly name = "VolumeError";
}
