// One token's life through oauth4webapi with a TLS certificate, at the aliases of the metadata:
// values come as JSON on stdin, and what was seen is printed.
import https from 'node:https'
import * as oauth from 'oauth4webapi'

const { issuer, client, certificate, authority, scope } = JSON.parse(
  await new Response(process.stdin).text(),
)
const addresses = []

// Node's fetch takes no certificate.
function fetch(address, { method, headers, body }) {
  addresses.push(String(address))
  const tls = { cert: certificate, key: certificate, ca: authority }
  const sent = { method, headers: Object.fromEntries(new Headers(headers)), ...tls }
  return new Promise((resolve, reject) => {
    const request = https.request(address, sent, async (answer) => {
      const chunks = []
      for await (const chunk of answer) chunks.push(chunk)
      const { statusCode: status, headers } = answer
      resolve(new Response(Buffer.concat(chunks), { status, headers }))
    })
    request.on('error', reject)
    request.end(body && String(body))
  })
}

const http = { [oauth.customFetch]: fetch }
const url = new URL(issuer)
const as = await oauth.processDiscoveryResponse(
  url,
  await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...http }),
)
const party = { client_id: client, use_mtls_endpoint_aliases: true }
const proof = oauth.TlsClientAuth()
const token = await oauth.processClientCredentialsResponse(
  as,
  party,
  await oauth.clientCredentialsGrantRequest(as, party, proof, { scope }, http),
)

async function introspect() {
  const response = await oauth.introspectionRequest(as, party, proof, token.access_token, http)
  return await oauth.processIntrospectionResponse(as, party, response)
}

const before = await introspect()
await oauth.processRevocationResponse(
  await oauth.revocationRequest(as, party, proof, token.access_token, http),
)
console.log(JSON.stringify({ token, before, after: await introspect(), addresses }))
