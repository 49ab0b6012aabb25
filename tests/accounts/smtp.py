"""A mail server for tests: real sockets on loopback, as much of RFC 5321 as a client needs."""

import socket
import socketserver
import threading


class Server:
    """Takes mails on `port`; `refuse` maps an address to the reply for it; `slow` is seconds before DATA."""

    def __init__(self, port=0):
        self.mails, self.refuse, self.greeting = [], {}, "220 example"
        self._server = _Threads(("127.0.0.1", port), _Session)
        self._server.owner = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Threads(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class _Session(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self):
        owner = self.server.owner
        self.say(owner.greeting)
        if not owner.greeting.startswith("220"):
            return
        recipient = ""
        while line := self.rfile.readline().decode().strip():
            verb = line.upper()
            if verb.startswith("RCPT"):
                recipient = line.partition("<")[2].rstrip(">")
                self.say(owner.refuse.get(recipient, "250 ok"))
            elif verb == "DATA":
                self.take(owner, recipient)
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def take(self, owner, recipient):
        reply = owner.refuse.get(f"data:{recipient}")
        if reply == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        if reply is None:
            owner.mails.append((recipient, b"".join(lines)))
        self.say(reply or "250 taken")
