# Read by init, first of all: the hardware watchdog is armed with 60 seconds and left armed, so that whatever hangs before
# `mote machine` opens it again ends in a restart, which the loader counts as a failed try. A file that is closed without
# the letter V leaves the watchdog running; that is why the program that sets the time is killed.
arm_watchdog() {
  [ -c /dev/watchdog0 ] || return
  # A Raspberry Pi without a serial number is QEMU's, whose watchdog resets the board in the moment it is armed.
  if grep -q raspberrypi /proc/device-tree/compatible 2>/dev/null; then
    serial=$(tr -d '0\000' </proc/device-tree/serial-number 2>/dev/null)
    [ -n "$serial" ] || return
  fi
  watchdog -F -T 60 -t 3600 /dev/watchdog0 2>/dev/null &
  holder=$!
  # Armed is when the kernel says so: 60 may be what the driver begins with. The time is set right after; a device that
  # cannot count to a minute keeps its own.
  was=
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    usleep 50000
    state=
    read -r state 2>/dev/null </sys/class/watchdog/watchdog0/state
    read -r seconds </sys/class/watchdog/watchdog0/timeout
    [ "$state" = active ] || continue
    [ "$seconds" = 60 ] && break
    [ -n "$was" ] && break
    was=active
  done
  kill -9 "$holder"
  wait "$holder" 2>/dev/null
}

while read -r module; do
  insmod "/lib/modules/$module" 2>/dev/null
done </etc/watchdogs
arm_watchdog
# When nobody fed it any more; mote reports how long that lasted. On a board without watchdog too, where it costs nothing.
read -r since idle </proc/uptime
echo "$since" >/dev/watchdog-since
