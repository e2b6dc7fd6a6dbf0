"""A new installation: a commented site file, its key and its folders, with an archive of its own."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fluoronav.paths import private_folder, private_opener
from fluoronav.site.site_file import SiteError

_TEMPLATE = """\
# This installation of fluoronav. Paths are relative to this file. docs/pacs.md describes every key.
name: {name}

# Who issues the patient IDs of this hospital; used where an image does not say (IssuerOfPatientID).
issuer: {name}

# What came, what waits to be sent, and the database. Readable by this user alone.
folder: node
# One folder for each case, under a pseudonym.
cases: cases
# Pseudonyms are made, and names are sealed, with this key. Keep a copy in a safe place: without it no
# result can be brought back to its patient.
key: site.key

# Where this node listens for DICOM.
node:
  host: 127.0.0.1          # 0.0.0.0 takes connections from other computers
  port: {port}
  # Without TLS, which is right on this computer alone. For a network:
  # tls: {{certificate: tls/node.pem, key: tls/node.key, ca: tls/hospital-ca.pem}}
  insecure: true
  # Our AE titles, and what each does with a series: plan (a case is made of a CT), compare (a follow-up CT of a
  # case), archive (keeps what it gets: the archive to try with).
  titles:
    FLUORO_PLAN: plan
    FLUORO_POST: compare
    FLUORO_ARCHIVE: archive
  # AE titles that may call: the scanners, the PACS, and this node itself.
  callers: [FLUORONAV, STORESCU]
  least_free_mb: 2048      # with less free disk, senders are told: out of resources

# When a series counts as complete.
series:
  settle_s: 0.5            # after its association was released, if no slice is missing
  quiet_s: 60              # without another instance, it is judged, and flagged
  # count_from: pacs       # a peer that says how many instances a series has
  # burned_in: refuse      # images that may show a name in their pixels; or set_aside (the rest becomes a case), take

# What `pacs fetch` takes from an archive.
# fetch:
#   peer: pacs             # results_to by default
#   studies: 2             # of a patient: the newest that have CT
#   least_instances: 20    # of a CT series; fewer are localizers
#   ahead_h: 72            # before a scheduled case, its CT is fetched
#   behind_h: 12           # after its start, it is still fetched

# Who says which cases are scheduled; their CT is fetched ahead.
# worklist:                # Modality Worklist
#   dimse: {{host: ris.example, port: 104, called: WORKLIST, insecure: true}}
#   station: FLUORO_PLAN   # all stations without it
#   every_s: 300
# hl7:                     # HL7 v2 over MLLP: ADT, ORM, OMI, SIU
#   host: 0.0.0.0
#   port: 2575
#   callers: [192.0.2.10]  # addresses of the interface engine
#   issuers: {{HOSP: {name}}}  # issuers as images name them, by assigning authority (PID-3.4)
#   tls: {{certificate: tls/node.pem, key: tls/node.key, ca: tls/hospital-ca.pem}}
# fhir:                    # FHIR R4: Appointment, ServiceRequest, Patient, ImagingStudy
#   url: https://fhir.example/r4
#   token: fhir.token
#   identifiers: {{"urn:oid:1.2.276.0.76.4711": {name}}}  # issuers as images name them, by identifier system
#   every_s: 300

# Archives that we send to. Each has dicomweb, dimse, or both (then dicomweb goes first).
peers:
  archive:                 # the archive of this node itself
    dimse: {{host: 127.0.0.1, port: {port}, called: FLUORO_ARCHIVE, insecure: true}}
  node:                    # this node as a scanner sees it: for a first try
    dimse: {{host: 127.0.0.1, port: {port}, called: FLUORO_PLAN, insecure: true}}
  # pacs:
  #   dicomweb: {{url: "https://pacs.example/dicom-web", token: pacs.token, ca: tls/hospital-ca.pem}}
  #   dimse:
  #     host: pacs.example
  #     port: 2762
  #     called: PACS
  #     tls: {{certificate: tls/node.pem, key: tls/node.key, ca: tls/hospital-ca.pem}}

# Where results go.
results_to: archive

# What `fluoronav pacs live` hears: the endpoints of the launch file.
# live:
#   out: tcp://127.0.0.1:5551
#   frames: tcp://127.0.0.1:5550
#   source: carm0
#   run: true              # recorded runs are sent, too
"""
KEY_BYTES = 32


def init_site(folder: Path, name: str = "SITE", port: int = 11112) -> Path:
    """Writes ``SITE.yaml`` and ``site.key`` in a folder; returns the site file.

    Raises
    ------
    SiteError
        One of them is there: a key that is replaced makes every pseudonym another.
    """
    site, key = folder / "SITE.yaml", folder / "site.key"
    for path in (site, key):
        if path.exists():
            raise SiteError(f"{path}: is there already; nothing was written. Name another folder")
    if not name.strip():
        raise SiteError("the site's name is empty; give one by --name")
    private_folder(folder)
    with open(key, "xb", opener=private_opener) as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        os.fsync(file.fileno())
    site.write_text(_TEMPLATE.format(name=name, port=port), encoding="utf-8")
    return site
