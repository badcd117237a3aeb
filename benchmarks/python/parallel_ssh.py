# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run a command on many hosts by parallel-ssh, as its documentation shows it.

python parallel_ssh.py PARALLEL USER KEY HOST:PORT... -- COMMAND
"""

import sys

from pssh.clients import ParallelSSHClient
from pssh.config import HostConfig

end = sys.argv.index("--")
parallel, user, key, *given = sys.argv[1:end]
places = [place.split(":") for place in given]
client = ParallelSSHClient(
    [host for host, _ in places],
    host_config=[
        HostConfig(port=int(port), user=user, private_key=key) for _, port in places
    ],
    pool_size=int(parallel),
    # Each drone is asked again a few times, as the others do by themselves.
    num_retries=5,
)
outputs = client.run_command(" ".join(sys.argv[end + 1 :]), stop_on_errors=False)
client.join(outputs)
bad = [output for output in outputs if output.exception or output.exit_code]
sys.exit(f"{len(bad)} failed: {bad[0].exception}" if bad else 0)
